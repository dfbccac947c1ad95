import struct
from contextlib import ExitStack
from io import BytesIO

import pytest

from deploy import hub
from deploy.errors import LockError
from deploy.lockfile import Tensors
from deploy.resolving import folder, headers
from deploy.resolving.folder import Disk, Pieces, Repository
from tests import hubserver, tiny
from tests.hubserver import Repo

EMPTY = (2).to_bytes(8, "little") + b"{}"


@pytest.fixture
def served(monkeypatch):
    """Serve a repository for the rest of the test; returns it as it is while it is locked, and the Hub."""
    with ExitStack() as stack:

        def start(repo):
            server = stack.enter_context(hubserver.hub([repo]))
            monkeypatch.setenv("HF_ENDPOINT", server.url)
            return Repository(hub.resolve(repo.id, "main")), server

        yield start


def pieces(content, size=None):
    """A remote file, and the list of what was fetched of it."""
    asked = []

    def piece(start, stop):
        asked.append((start, stop))
        return content[start:stop]

    return Pieces("x.gguf", size or len(content), piece), asked


def test_pieces_read_as_a_file_does():
    content = bytes(range(256)) * 8192
    remote, asked = pieces(content)
    local = BytesIO(content)
    for size in (4, 100_000, 0, 1, 400_000, 1_000_000, 10_000_000, 5):
        assert remote.read(size) == local.read(size)
        remote.seek(7, 1)
        local.seek(7, 1)
    assert [start for start, _ in asked] == [0, *(stop for _, stop in asked[:-1])]
    assert len(asked) <= 5


def test_a_small_read_fetches_one_piece():
    remote, asked = pieces(bytes(1 << 20))
    remote.read(8)
    remote.read(1000)
    assert asked == [(0, folder.PIECE_BYTES)]


def test_no_header_is_followed_for_ever():
    remote, asked = pieces(b"", size=1 << 40)
    remote.seek(folder.HEADER_BYTES, 1)
    with pytest.raises(LockError, match=r"`x\.gguf` does not end within"):
        remote.read(1)
    assert not asked


def test_shards_of_a_repository_by_their_heads(served, tmp_path):
    whole = (tiny.huggingface(tmp_path) / "model.safetensors").read_bytes()
    names = [f"m-{number}.safetensors" for number in range(20)]
    repository, server = served(Repo("org/x", files=dict.fromkeys(names, whole)))
    before = len(server.requests)
    found = headers.safetensors(repository, names)
    once = headers.safetensors(Disk(tmp_path), ["model.safetensors"])
    assert found == Tensors(count=20 * once.count, elements={"BF16": 20 * once.elements["BF16"]})
    assert {asked.range for asked in server.requests[before:]} == {f"bytes=0-{folder.PIECE_BYTES - 1}"}


def test_a_header_of_100_mb_is_refused_by_name_after_its_first_bytes(served):
    claimed = (100_000_000).to_bytes(8, "little") + b"{" + b" " * 300_000
    repository, server = served(Repo("org/x", files={"m.safetensors": claimed}))
    with pytest.raises(LockError, match="header of 100000000 bytes") as caught:
        headers.safetensors(repository, ["m.safetensors"])
    assert caught.value.where == "m.safetensors"
    assert sum(asked.sent_bytes for asked in server.requests if "resolve" in asked.path) <= folder.PIECE_BYTES


def test_headers_are_bounded_together(served, monkeypatch):
    monkeypatch.setattr(headers, "TOTAL_BYTES", 5)
    repository, _ = served(
        Repo("org/x", files={"a.safetensors": EMPTY, "b.safetensors": EMPTY, "c.safetensors": EMPTY})
    )
    assert headers.safetensors(repository, ["a.safetensors", "b.safetensors"]) == Tensors(count=0)
    with pytest.raises(LockError, match="together"):
        headers.safetensors(repository, list(repository.paths))


def test_no_header_on_this_disk_is_followed_for_ever_either(tmp_path):
    path = tmp_path / "x.gguf"
    with path.open("wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, 0, 9))
        for _ in range(9):
            file.write(struct.pack("<QcIQ", 1, b"k", 8, 1 << 25))
            file.seek(1 << 25, 1)
        file.write(b"\0")
    with pytest.raises(LockError, match="does not end within"):
        headers.gguf(Disk(tmp_path), [path.name])


def test_so_many_files_are_no_model(tmp_path):
    with pytest.raises(LockError, match="5000 files"):
        headers.safetensors(Disk(tmp_path), ["x.safetensors"] * 5000)
    with pytest.raises(LockError, match="5000 files"):
        headers.gguf(Disk(tmp_path), ["x.gguf"] * 5000)


def test_a_damaged_part_is_named(tmp_path):
    tiny.gguf(tmp_path / "a.gguf")
    (tmp_path / "b.gguf").write_bytes((tmp_path / "a.gguf").read_bytes()[:300])
    (tmp_path / "c.safetensors").write_bytes(EMPTY[:-1])
    with pytest.raises(LockError, match="cut off") as caught:
        headers.gguf(Disk(tmp_path), ["a.gguf", "b.gguf"])
    assert caught.value.where == "b.gguf"
    with pytest.raises(LockError, match="file of 9") as caught:
        headers.safetensors(Disk(tmp_path), ["c.safetensors"])
    assert caught.value.where == "c.safetensors"


@pytest.mark.parametrize(
    ("elements", "packed", "expected"),
    [
        ({"BF16": 5, "F32": 2}, False, 7),
        ({"F8_E4M3": 5, "F32": 2}, False, 7),
        ({"I32": 5, "BF16": 2}, False, None),
        ({"U8": 5}, False, None),
        ({"Q4_K": 5, "F32": 2}, True, 7),
        ({}, False, None),
    ],
)
def test_parameters(elements, packed, expected):
    assert headers.parameters(Tensors(count=1, elements=elements), packed=packed) == expected


def test_too_much_beside_the_weights_is_not_fetched(served):
    repository, server = served(Repo("org/x", files={f"{number}.json": b"{}" for number in range(1001)}))
    assert repository.read("7.json") == b"{}"
    with pytest.raises(LockError, match="more beside its weights than a model needs: 1001 files"):
        repository.files(repository.paths)
    assert [asked.path for asked in server.requests if "resolve" in asked.path] == [f"/org/x/resolve/{'1' * 40}/7.json"]
