"""What can be removed from the disk, and how it goes: in an order that a crash at any point leaves sound."""

from __future__ import annotations

import shutil
import stat
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Literal

import msgspec

from deploy import flock

Kind = Literal["weights", "unfinished", "incomplete", "wheel", "environment", "lock"]
BLOCK_BYTES = 512
"""The unit of st_blocks (POSIX), whatever the file system's own is."""


class Freeable(msgspec.Struct, frozen=True, kw_only=True):
    """Something that nothing here needs any more."""

    kind: Kind
    path: str
    """Of the whole: a repository's folder, an environment, a file."""
    why: str
    frees_bytes: int
    """Room on the disk: what other hard links hold is not counted."""
    paths: tuple[str, ...]
    """What goes, in this order: first what names something, then what it named. Folders go whole."""
    guard: str | None = None
    """A file that is held with flock while they go. Where another process has it, nothing goes."""

    @property
    def key(self) -> tuple[str, str]:
        return self.kind, self.path


def room(path: Path) -> int:
    """Bytes of disk that removing this one directory entry frees; of a folder with all below it. 0 where it is gone."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return 0
    if not stat.S_ISDIR(found.st_mode):
        return found.st_blocks * BLOCK_BYTES if found.st_nlink == 1 else 0
    return found.st_blocks * BLOCK_BYTES + sum(room(entry) for entry in path.iterdir())


def free(item: Freeable) -> int:
    """Remove it; the bytes of disk that became free, as the file system had counted them. 0 where it is in use."""
    guarded = item.guard is not None and Path(item.guard).exists()
    held: AbstractContextManager[object] = flock.tried(Path(item.guard or "")) if guarded else nullcontext(True)
    with held as mine:
        return sum(_remove(Path(path)) for path in item.paths) if mine else 0


def folders(parent: Path, name: str = "*") -> list[Path]:
    """Those in it, by name; links to folders are none."""
    return [path for path in sorted(parent.glob(name)) if path.is_dir() and not path.is_symlink()]


def prune(folder: Path, top: Path) -> None:
    """Remove folders that have become empty, from this one upwards, ``top`` itself included."""
    while folder.is_relative_to(top):
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent


def _remove(path: Path) -> int:
    try:
        size = room(path)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    except FileNotFoundError:
        return 0
    return size
