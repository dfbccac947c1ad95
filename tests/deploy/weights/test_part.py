"""A blob on its way: what lies there counts, is hashed, and becomes the blob only when it is right."""

from __future__ import annotations

from collections.abc import Iterator
from io import FileIO
from pathlib import Path

import msgspec
import pytest

from deploy import flock
from deploy.stop import Stop, Stopped
from deploy.weights.part import Part
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


def test_hashing_what_lies_there_can_be_stopped(raw: FileIO) -> None:
    raw.write(CONTENT)
    stop = Stop()
    stop.set()
    with pytest.raises(Stopped):
        Part(raw, FILE, stop)
    assert Path(str(raw.name)).read_bytes() == CONTENT
