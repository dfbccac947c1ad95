"""A blob on its way: what lies there counts, is hashed, and becomes the blob only when it is right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path

import msgspec
import pytest

from deploy import flock
from deploy.stop import Stop, Stopped
from deploy.weights.part import Part, Shared
from tests import locked
from tests.hubserver import Repo

CONTENT = locked.noise(100_000)
FILE = locked.of(Repo("org/x", files={"config.json": CONTENT})).files[0]


@pytest.fixture
def raw(tmp_path: Path) -> Iterator[FileIO]:
    with flock.held(tmp_path / "blob.part") as file:
        yield file


def test_it_goes_on_with_what_lies_there(raw: FileIO, tmp_path: Path) -> None:
    raw.write(CONTENT[:30_000])
    part = Part(raw, FILE, Stop())
    assert (part.count, part.resumed) == (30_000, 30_000)
    part.append(CONTENT[30_000:])
    assert part.mismatch() is None
    sealed = part.seal(tmp_path / "blob")
    assert (tmp_path / "blob").read_bytes() == CONTENT
    assert sealed.st_ino == (tmp_path / "blob").stat().st_ino
    assert not (tmp_path / "blob.part").exists()


def test_it_starts_over(raw: FileIO) -> None:
    raw.write(b"wrong")
    part = Part(raw, FILE, Stop())
    part.restart()
    part.append(CONTENT)
    assert (part.mismatch(), part.count, part.resumed) == (None, len(CONTENT), 0)


def test_it_says_how_it_is_wrong(raw: FileIO) -> None:
    part = Part(raw, FILE, Stop())
    assert part.mismatch() == f"expected {len(CONTENT)} bytes, found 0"
    part.append(CONTENT[:-1] + b"\0")
    assert (part.mismatch() or "").startswith(f"expected sha256 {FILE.sha256}, found ")
    part.restart()
    part.append(CONTENT + b"!")
    assert part.mismatch() == f"expected {len(CONTENT)} bytes, found {len(CONTENT) + 1}"


def test_its_name_as_a_git_blob_counts_too(raw: FileIO) -> None:
    part = Part(raw, msgspec.structs.replace(FILE, git="0" * 40), Stop())
    part.append(CONTENT)
    assert part.mismatch() == f"expected sha1 {'0' * 40}, found {FILE.git}"


def add(path: Path) -> None:
    with path.open("ab") as other:
        other.write(b"!")


@pytest.mark.parametrize("happens", [add, Path.unlink, lambda path: path.rename(path.with_name("elsewhere"))])
def test_what_somebody_else_touched_gets_no_name(
    raw: FileIO, tmp_path: Path, happens: Callable[[Path], object]
) -> None:
    part = Part(raw, FILE, Stop())
    part.append(CONTENT)
    assert part.is_ours()
    happens(tmp_path / "blob.part")
    assert not part.is_ours()
    with pytest.raises(Shared):
        part.seal(tmp_path / "blob")
    assert not (tmp_path / "blob").exists()


def test_another_file_in_its_place_gets_no_name(raw: FileIO, tmp_path: Path) -> None:
    part = Part(raw, FILE, Stop())
    part.append(CONTENT)
    (tmp_path / "other").write_bytes(CONTENT[::-1])
    (tmp_path / "other").rename(tmp_path / "blob.part")
    with pytest.raises(Shared):
        part.seal(tmp_path / "blob")
    assert (tmp_path / "blob.part").read_bytes() == CONTENT[::-1]


def test_nothing_is_added_to_what_somebody_else_writes(raw: FileIO, tmp_path: Path) -> None:
    part = Part(raw, FILE, Stop())
    part.append(CONTENT[:100])
    add(tmp_path / "blob.part")
    with pytest.raises(Shared):
        part.append(CONTENT[100:])
    assert (tmp_path / "blob.part").read_bytes() == CONTENT[:100] + b"!"


def test_a_blob_that_somebody_else_made_of_it_is_not_emptied(raw: FileIO, tmp_path: Path) -> None:
    part = Part(raw, FILE, Stop())
    part.append(CONTENT)
    (tmp_path / "blob.part").rename(tmp_path / "blob")
    with pytest.raises(Shared):
        part.restart()
    assert (tmp_path / "blob").read_bytes() == CONTENT


def test_hashing_what_lies_there_can_be_stopped(raw: FileIO) -> None:
    raw.write(CONTENT)
    stop = Stop()
    stop.set()
    with pytest.raises(Stopped):
        Part(raw, FILE, stop)
    assert Path(str(raw.name)).read_bytes() == CONTENT
