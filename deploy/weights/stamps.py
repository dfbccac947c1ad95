"""Which files passed a full hash, and what they looked like then: one row per file in a SQLite file of the state dir.

A stamp is a shortcut, never a proof, so everything here gives way: what cannot be read is no stamp, what cannot be
written is not kept, and a file that is damaged or not ours is made anew. Losing them costs time: every blob is hashed
again. It costs room too: that a blob was fetched by us is known from its stamp alone, and what has none may be another
tool's (who downloads by commit leaves no other trace in the snapshot), so that `gc` leaves it for good.

A rollback journal, not WAL: the state dir may be on NFS, where WAL's shared memory does not work. Nothing is flushed
to disk: a kill leaves the file whole, and after a power cut SQLite tells a torn one.
"""

from __future__ import annotations

import atexit
import os
import sqlite3
import threading
import time
from pathlib import Path

import msgspec

from deploy import output, paths

VERSION = 1
BUSY_S = 5.0
"""So long another process may hold the file before we go on without it."""
HURRIED_S = 60.0
"""And so long we then ask without waiting: a wait for each of many files would be worse than hashing them."""
BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
PASSING = (
    *BUSY,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
)
"""What says nothing against the file itself: another holds it, or it cannot be written here. The low byte counts."""


class Stamp(msgspec.Struct, frozen=True, kw_only=True):
    """A file as it was when all of it hashed to ``sha256``. ``place`` is where it came from, if we fetched it."""

    size: int
    mtime_ns: int
    inode: int
    sha256: str
    place: str | None = None

    def fits(self, found: os.stat_result) -> bool:
        return (self.size, self.mtime_ns, self.inode) == (found.st_size, found.st_mtime_ns, found.st_ino)


def get(path: Path) -> Stamp | None:
    """The stamp of a file, links followed."""
    try:
        rows = _store.run("SELECT stamp FROM stamps WHERE path = ?", _key(path))
        return msgspec.json.decode(rows[0][0], type=Stamp) if rows else None
    except msgspec.MsgspecError:
        return None


def put(path: Path, stamp: Stamp) -> None:
    """Remember it, in place of an earlier one. From any thread, beside any other process."""
    _store.run("REPLACE INTO stamps VALUES (?, ?)", _key(path), msgspec.json.encode(stamp), make=True)


def forget(path: Path) -> None:
    """Its file is gone."""
    _store.run("DELETE FROM stamps WHERE path = ?", _key(path))


def held() -> bool:
    """Whether another process held the file when it was last asked: that a stamp was not found says nothing then."""
    return _store.held


def _key(path: Path) -> bytes:
    """Bytes, because a path need not be valid UTF-8."""
    return os.fsencode(os.path.realpath(path))


class _Store:
    """The one connection of this process; opened again where its file was replaced or moved."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[str, int, int] | None = None
        self._hurried: tuple[Path, float] | None = None
        self.held = False

    def run(self, statement: str, *values: bytes, make: bool = False) -> list[tuple[bytes]]:
        """The rows; none where the file is not there (``make`` makes it), or cannot be used now."""
        with self._lock:
            self.held = False
            for _ in range(2):
                try:
                    return self._current(make=make).execute(statement, values).fetchall()
                except OSError:
                    break
                except sqlite3.DatabaseError as error:
                    code = error.sqlite_errorcode & 0xFF
                    if code in BUSY:
                        self._hurry()
                    if code in PASSING:
                        break
                    self._discard()
            return []

    def close(self) -> None:
        if self._connection:
            self._connection.close()
        self._connection = self._file = None

    def _hurry(self) -> None:
        """Wait no more for this file for a while."""
        self.held = True
        path = paths.stamps_file()
        if self._wait_s(path):
            self._hurried = path, time.monotonic() + HURRIED_S
            output.warn(f"another process holds `{path}`: going on without it, so that files are hashed again")

    def _wait_s(self, path: Path) -> float:
        hurried, until = self._hurried or (None, 0.0)
        return 0.0 if hurried == path and time.monotonic() < until else BUSY_S

    def _current(self, *, make: bool) -> sqlite3.Connection:
        path = paths.stamps_file()
        if make and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        found = path.stat()
        file = (str(path), found.st_dev, found.st_ino)
        if self._connection is None or self._file != file:
            self.close()
            self._connection, self._file = _opened(path, self._wait_s(path)), file
        self._connection.execute(f"PRAGMA busy_timeout = {self._wait_s(path) * 1000:.0f}")
        return self._connection

    def _discard(self) -> None:
        self.close()
        path = paths.stamps_file()
        try:
            # The journal first: left beside a new file, it would be played back into it.
            path.with_name(f"{path.name}-journal").unlink(missing_ok=True)
            path.unlink(missing_ok=True)
        except OSError:
            return


def _opened(path: Path, wait_s: float) -> sqlite3.Connection:
    """Raises sqlite3.DatabaseError for a file that is no SQLite, or has other tables than ours."""
    connection = sqlite3.connect(path, timeout=wait_s, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA synchronous = OFF")
        # Kept and overwritten: making and removing the journal costs a third of every row.
        connection.execute("PRAGMA journal_mode = PERSIST")
        if _version(connection) != VERSION:
            _prepare(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    # Another process may have been faster.
    if _version(connection) != VERSION:
        connection.execute("CREATE TABLE stamps (path BLOB PRIMARY KEY, stamp BLOB NOT NULL) WITHOUT ROWID")
        connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute("COMMIT")


def _version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


_store = _Store()
atexit.register(_store.close)
