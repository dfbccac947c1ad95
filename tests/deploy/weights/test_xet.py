"""The real hf_xet against a content store on loopback: bytes, ranges, secrets, failures, and how it is ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import msgspec
import pytest

from deploy.errors import PlaceError, WeightsError
from deploy.lockfile import File
from deploy.stop import Stop, Stopped
from deploy.weights import cache, puller, xet
from deploy.weights.part import Part
from deploy.weights.xet import Xet
from tests import hubserver, locked, xetstore
from tests.hubrepo import Repo
from tests.xetstore import READ_TOKEN, Store

WEIGHTS = locked.noise(3 << 20)
REPO = Repo("org/tiny-GGUF", files={"tiny.gguf": WEIGHTS})
VARIANT = locked.of(REPO)
# A failure of hf_xet comes as an exception or, now and then, as the silent end of its stream.
HF_XET = r"hf_xet (failed: |ended at byte 0 of 3145728)"
TOKEN_ROUTE = f"/api/models/org/tiny-GGUF/xet-read-token/{REPO.commit}"


@dataclass(frozen=True)
class World:
    """A Hub, the store it names, and the file as a lock names it."""

    hub: hubserver.Hub
    server: hubserver.Hub
    store: Store
    file: File

    @property
    def place(self) -> Xet:
        return Xet(self.hub.url)

    def read(self, offset: int = 0) -> bytes:
        return b"".join(self.place.open(VARIANT, self.file, offset))

    def silent(self, path: str) -> threading.Event:
        """Let the store never answer there. Set once it was asked."""
        log = Telling(path)
        self.server.requests = log
        self.server.fault(path, stall=True)
        return log.asked


class Telling(list[hubserver.Asked]):
    """A request log that can be waited for."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path
        self.asked = threading.Event()

    def append(self, line: hubserver.Asked) -> None:
        super().append(line)
        if fnmatch(line.path, self._path):
            self.asked.set()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with hubserver.hub([REPO]) as hub, hubserver.hub([]) as server:
        store = Store(tmp_path_factory.mktemp("store"), server)
        store.announce(hub)
        yield World(hub, server, store, msgspec.structs.replace(VARIANT.files[0], xet=store.add(WEIGHTS)))


@pytest.fixture
def world(running: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """As if just started: two servers for each test would take longer than all tests."""
    for server in (running.hub, running.server):
        server.requests, server.faults = [], []
    running.store.url, running.store.lifetime_s = running.server.url, 3600
    # As often as it is asked by default, but sooner.
    monkeypatch.setitem(xet.SETTINGS, "client.retry_base_delay", "10ms")
    return running


def tokens(server: hubserver.Hub) -> set[tuple[str, str | None]]:
    """Which route was asked with which token."""
    return {(asked.path.split("/")[1], asked.token) for asked in server.requests}


# Bytes


@pytest.mark.parametrize("offset", [0, 1, 1_000_001, len(WEIGHTS) - 1, len(WEIGHTS)])
def test_the_bytes_from_any_offset(world: World, offset: int) -> None:
    assert world.read(offset) == WEIGHTS[offset:]


def test_an_offset_costs_no_bytes_before_it(world: World) -> None:
    assert world.read(2 << 20) == WEIGHTS[2 << 20 :]
    sent_bytes = sum(asked.sent_bytes for asked in world.server.requests if asked.path.startswith("/xorbs/"))
    assert sent_bytes < (1 << 20) + 200_000


def test_chunks_are_small(world: World) -> None:
    assert max(map(len, world.place.open(VARIANT, world.file, 0))) <= 1 << 20


def test_flipped_bytes_come_through_and_their_hash_refuses_them(world: World, tmp_path: Path) -> None:
    changed = world.store.add(locked.noise(3 << 20, "to be changed"))
    world.store.files[changed].flip()
    file = msgspec.structs.replace(world.file, xet=changed)
    with (tmp_path / "part").open("w+b", buffering=0) as raw:
        part = Part(raw, file, Stop())
        for chunk in world.place.open(VARIANT, file, 0):
            part.append(chunk)
        assert part.count == world.file.size
        assert (part.mismatch() or "").startswith(f"expected sha256 {world.file.sha256}, found ")


def test_nothing_is_left_on_disk_but_the_log_of_hf_xet(world: World, tmp_path: Path) -> None:
    world.read()
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".log"]
    assert written == []


# As a place of the puller


@pytest.fixture
def pulling(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """The Hub refuses plain downloads: only its store has the file."""
    monkeypatch.setenv("HF_ENDPOINT", world.hub.url)
    world.hub.fault("*/resolve/*", status=403)
    return world


def pull(file: File) -> puller.Pulled:
    (pulled,) = puller.pull((msgspec.structs.replace(VARIANT, files=(file,)),))
    return pulled


def test_a_file_that_only_the_store_has_is_pulled(pulling: World) -> None:
    pulled = pull(pulling.file)
    assert (pulled.place, pulled.fetched_bytes) == (pulling.place.name, len(WEIGHTS))
    assert Path(pulled.path).read_bytes() == WEIGHTS


def test_what_plain_http_began_the_store_ends(pulling: World) -> None:
    pulling.hub.faults.insert(0, hubserver.Fault("*/resolve/*", times=1, cut=2 << 20))
    pulled = pull(pulling.file)
    assert pulled.place == pulling.place.name
    assert Path(pulled.path).read_bytes() == WEIGHTS
    sent_bytes = sum(asked.sent_bytes for asked in pulling.server.requests if asked.path.startswith("/xorbs/"))
    assert 0 < sent_bytes < (1 << 20) + 200_000


def test_other_bytes_from_the_store_never_count(pulling: World) -> None:
    changed = pulling.store.add(locked.noise(3 << 20, "other bytes of the same length"))
    with pytest.raises(WeightsError, match=f"expected sha256 {pulling.file.sha256}, found "):
        pull(msgspec.structs.replace(pulling.file, xet=changed))
    assert [path for path in cache.folder(VARIANT).rglob("*") if path.is_file()] == []


# Secrets


def test_the_hubs_token_goes_to_the_hub_and_the_stores_to_the_store(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert world.read() == WEIGHTS
    assert tokens(world.hub) == {("api", "Bearer hf_secret")}
    # The chunks' addresses are signed: no token at all.
    assert tokens(world.server) == {("v2", f"Bearer {READ_TOKEN}"), ("v1", f"Bearer {READ_TOKEN}"), ("xorbs", None)}


def test_hf_xet_renews_the_stores_token_with_the_hubs(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    world.store.lifetime_s = 0
    assert world.read() == WEIGHTS
    asked = [(asked.path, asked.token) for asked in world.hub.requests]
    assert asked[:2] == [(TOKEN_ROUTE, "Bearer hf_secret")] * 2


def test_the_hubs_token_does_not_follow_a_redirect_to_another_host(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    world.store.lifetime_s = 0
    world.store.announce(world.server)
    world.hub.fault(TOKEN_ROUTE, status=307, headers={"Location": f"{world.server.url}{TOKEN_ROUTE}"})
    assert world.read() == WEIGHTS
    # Our own request and the one of hf_xet.
    asked = [asked.token for asked in world.server.requests if asked.path == TOKEN_ROUTE]
    assert len(asked) >= 2
    assert set(asked) == {None}


def test_a_password_in_the_address_is_for_the_hub_and_not_shown(world: World) -> None:
    place = Xet(world.hub.url.replace("://", "://someone:secret@"))
    assert place.name == f"xet {world.hub.url.removeprefix('http://')}"
    assert b"".join(place.open(VARIANT, world.file, 0)) == WEIGHTS
    assert {(asked.token or "")[:6] for asked in world.hub.requests} == {"Basic "}


@pytest.mark.parametrize("route", [TOKEN_ROUTE, "/v1/*", "/xorbs/*"])
def test_no_failure_shows_a_secret(world: World, monkeypatch: pytest.MonkeyPatch, route: str) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    for server in (world.hub, world.server):
        server.fault(route, status=403)
    with pytest.raises(PlaceError) as raised:
        world.read()
    said = f"{raised.value} {raised.value.hint} {raised.value.__cause__}"
    for secret in ("hf_secret", READ_TOKEN, xetstore.SIGNATURE):
        assert secret not in said


def test_nothing_is_reported_about_the_user(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("AFTER", "INTERVAL"):
        monkeypatch.setenv(f"HF_XET_TELEMETRY_HEARTBEAT_{variable}", "20ms")
    world.server.fault("/xorbs/*", slow=10 << 20)
    assert world.read() == WEIGHTS
    routes = {asked.path.split("/")[2] for asked in world.server.requests if asked.path.startswith("/v")}
    assert routes == {"reconstructions"}


# Refusals


def test_a_lock_without_the_stores_hash(world: World) -> None:
    with pytest.raises(PlaceError, match=r"no content-store hash for `tiny\.gguf`"):
        list(world.place.open(VARIANT, VARIANT.files[0], 0))
    assert world.hub.requests == []


@pytest.mark.parametrize("variable", ["HF_HUB_DISABLE_XET", "HF_HUB_OFFLINE"])
def test_what_the_user_forbade_asks_nobody(world: World, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setattr(f"huggingface_hub.constants.{variable}", True)
    with pytest.raises(PlaceError, match=variable):
        world.read()
    assert world.hub.requests == []


def test_a_hub_without_a_store(world: World) -> None:
    world.hub.fault(TOKEN_ROUTE, status=404)
    with pytest.raises(PlaceError, match="answered 404"):
        world.read()


def test_a_gated_repository(world: World) -> None:
    world.hub.fault(TOKEN_ROUTE, status=403, headers={"X-Error-Code": "GatedRepo"})
    with pytest.raises(PlaceError, match="is gated"):
        world.read()


def test_a_busy_hub_is_asked_again(world: World) -> None:
    world.hub.fault(TOKEN_ROUTE, times=1, status=429, headers={"Retry-After": "0"})
    assert world.read() == WEIGHTS


@pytest.mark.parametrize(
    "answer",
    [
        b"<html>",
        b'{"casUrl": "local://STORE", "accessToken": "x", "exp": 1}',
        b'{"casUrl": "http://a b/", "accessToken": "x", "exp": 1}',
        b'{"casUrl": "https://store", "accessToken": "x\\ny", "exp": 1}',
        b'{"casUrl": "https://store", "accessToken": "x"}',
    ],
)
def test_a_hub_that_names_no_store_of_the_web(world: World, tmp_path: Path, answer: bytes) -> None:
    folder = tmp_path / "made-by-the-hub"
    world.hub.fault(TOKEN_ROUTE, status=200, other=answer.replace(b"STORE", str(folder).encode()))
    with pytest.raises(PlaceError, match="names no content store"):
        world.read()
    assert not folder.exists()


def test_a_store_that_does_not_know_the_file(world: World) -> None:
    other = msgspec.structs.replace(world.file, xet="0" * 64)
    with pytest.raises(PlaceError, match=HF_XET):
        list(world.place.open(VARIANT, other, 0))


@pytest.mark.parametrize("fault", [{"status": 500}, {"cut": 1000}])
def test_a_store_that_fails_for_ever_is_given_up(world: World, fault: dict[str, int]) -> None:
    world.server.fault("/xorbs/*", **fault)
    with pytest.raises(PlaceError, match=HF_XET):
        world.read()


def test_a_store_that_fails_once_is_asked_again(world: World) -> None:
    world.server.fault("/xorbs/*", times=1, cut=1000)
    assert world.read() == WEIGHTS


def test_a_store_that_falls_silent_is_asked_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(xet.SETTINGS, "client.read_timeout", "200ms")
    world.server.fault("/xorbs/*", times=1, cut=1000, stall=True)
    assert world.read() == WEIGHTS


def test_the_users_own_settings_of_hf_xet_are_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_XET_CLIENT_RETRY_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("HF_XET_CLIENT_RETRY_BASE_DELAY", "20ms")
    world.server.fault("/xorbs/*/0", status=500)
    with pytest.raises(PlaceError, match=HF_XET):
        world.read()
    assert sum(asked.path.endswith("/0") for asked in world.server.requests) == 2


def test_a_store_that_is_not_there(world: World) -> None:
    world.store.url = "http://127.0.0.1:9"
    with pytest.raises(PlaceError, match=HF_XET):
        world.read()


# Its end


def test_silence_is_a_failure(world: World) -> None:
    world.server.fault("/v1/*", stall=True)
    silent = Xet(world.hub.url, stall_s=0.2)
    with pytest.raises(PlaceError, match="sent nothing for 0 s"):
        list(silent.open(VARIANT, world.file, 0))


def test_silence_in_the_middle_keeps_what_came(world: World) -> None:
    world.server.fault(f"/xorbs/*/{2 * xetstore.TERM_CHUNKS}", stall=True)
    arrived: list[bytes] = []
    with pytest.raises(PlaceError, match="sent nothing"):
        arrived.extend(Xet(world.hub.url, stall_s=0.5).open(VARIANT, world.file, 0))
    assert arrived
    assert WEIGHTS.startswith(b"".join(arrived))


@pytest.mark.parametrize("route", ["/v1/*", "/xorbs/*"])
def test_a_stop_from_another_thread_ends_a_wait(world: World, route: str) -> None:
    asked = world.silent(route)
    stop = Stop()
    ended: list[BaseException] = []

    def read() -> None:
        try:
            list(Xet(world.hub.url, stop=stop).open(VARIANT, world.file, 0))
        except BaseException as error:  # noqa: BLE001  # the edge of a thread
            ended.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    assert asked.wait(30)
    stop.set()
    thread.join(5)
    assert [type(error) for error in ended] == [Stopped]


@pytest.mark.parametrize("fault", [{}, {"stall": True}])
def test_left_in_the_middle_it_leaves_no_thread(world: World, fault: dict[str, bool]) -> None:
    world.server.fault(f"/xorbs/*/{2 * xetstore.TERM_CHUNKS}", **fault)
    with closing(world.place.open(VARIANT, world.file, 0)) as chunks:
        next(chunks)
        (thread,) = (found for found in threading.enumerate() if found.name.startswith(xet.THREAD))
    thread.join(5)
    assert not thread.is_alive()


INTERRUPTED = """\
import sys
import msgspec
from deploy.lockfile import Variant
from deploy.weights.xet import Xet
variant = msgspec.json.decode(sys.argv[2], type=Variant)
for chunk in Xet(sys.argv[1]).open(variant, variant.files[0], 0):
    pass
"""


@pytest.mark.parametrize("route", ["/v1/*", "/xorbs/*"])
def test_ctrl_c_ends_a_process_that_waits_for_a_silent_store(world: World, route: str) -> None:
    asked = world.silent(route)
    variant = msgspec.structs.replace(VARIANT, files=(world.file,))
    argv = [sys.executable, "-c", INTERRUPTED, world.hub.url, msgspec.json.encode(variant).decode()]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert asked.wait(30)
        os.kill(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=10)
    assert "KeyboardInterrupt" in err
    assert process.returncode == -signal.SIGINT
