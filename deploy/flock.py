"""A file that one process at a time may work on. The lock is the kernel's, so it ends with its holder."""

from __future__ import annotations

import errno
import fcntl
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from deploy import output
from deploy.errors import UserError

IN_THE_WAY = {errno.ELOOP: ("a link", "rm"), errno.EISDIR: ("a folder", "rm -r")}


@contextmanager
def held(path: Path, *, waiting: str | None = None) -> Iterator[FileIO]:
    """The file, made if need be, open for reading and appending, unbuffered, and locked until the block ends.

    ``waiting`` is said when another process has it. While it is held the file may be renamed or unlinked.
    Raises UserError for a link or a folder in its place: what a link leads to is never written.
    """
    with _take(path, waiting) as file:
        yield file


@contextmanager
def tried(path: Path) -> Iterator[FileIO | None]:
    """The same for a file that exists, without waiting: None where it is gone, not ours, or another process has it."""
    try:
        file = FileIO(path, "r+")
    except (FileNotFoundError, PermissionError, IsADirectoryError):
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
        file = _opened(path)
        try:
            _lock(file, waiting)
        except BaseException:
            file.close()
            raise
        if _still_there(file, path):
            return file
        # The one we waited for has renamed or unlinked it: what we hold is no longer at this path.
        file.close()


def _opened(path: Path) -> FileIO:
    try:
        return FileIO(path, "a+", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, 0o666))
    except OSError as error:
        if error.errno not in IN_THE_WAY:
            raise
        what, remove = IN_THE_WAY[error.errno]
        raise UserError(
            f"{what} is in the way of a file", where=str(path), hint=f"{remove} {shlex.quote(str(path))}"
        ) from error


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


@contextmanager
def shared(path: Path, *, waiting: str) -> Iterator[None]:
    """Held beside others who share it; who is to hold it alone waits for them all, and they for it (``waiting``).

    The file stays where it is for good. Where it cannot be made, nobody can hold it alone either.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = FileIO(path, "a+")
    except OSError:
        yield
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            output.say(waiting)
            fcntl.flock(file, fcntl.LOCK_SH)
        yield
