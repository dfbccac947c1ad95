"""A file that one process at a time may work on. The lock is the kernel's, so it ends with its holder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from deploy import output


@contextmanager
def held(path: Path, *, waiting: str | None = None) -> Iterator[FileIO]:
    """The file, made if need be, open for reading and appending, unbuffered, and locked until the block ends.

    ``waiting`` is said when another process has it. While it is held the file may be renamed or unlinked.
    """
    with _take(path, waiting) as file:
        yield file


@contextmanager
def tried(path: Path) -> Iterator[FileIO | None]:
    """The same for a file that exists, without waiting: None where it is gone, or another process has it."""
    try:
        file = FileIO(path, "r+")
    except FileNotFoundError:
        yield None
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        yield file if _still_there(file, path) else None


def idle(path: Path) -> bool:
    """Whether nobody holds it now; a file that is not there is idle."""
    with tried(path) as mine:
        return mine is not None or not path.exists()


def _take(path: Path, waiting: str | None) -> FileIO:
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = FileIO(path, "a+")
        try:
            _lock(file, waiting)
        except BaseException:
            file.close()
            raise
        if _still_there(file, path):
            return file
        # The one we waited for has renamed or unlinked it: what we hold is no longer at this path.
        file.close()


def _lock(file: FileIO, waiting: str | None) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if waiting:
            output.say(waiting)
        fcntl.flock(file, fcntl.LOCK_EX)


def _still_there(file: FileIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
