"""A blob while it is not complete: the bytes so far and their running hashes, on one file that we hold alone."""

from __future__ import annotations

import hashlib
import os
from io import FileIO
from pathlib import Path

from deploy import digests
from deploy.errors import UserError
from deploy.lockfile import File
from deploy.stop import Stop

CHUNK_BYTES = 1 << 20


class Shared(UserError):
    """Somebody else has changed or moved the file that we hold: the locks of its file system do not hold."""


class Part:
    """Made from what lies in the file already: that is hashed first, so that it can be continued.

    ``count`` is the number of bytes there, ``resumed`` how many of them it began with. What lies there is kept,
    whatever happens, until ``restart``. What changes it raises Shared, and changes nothing, once it is not ours alone.
    """

    def __init__(self, raw: FileIO, file: File, stop: Stop) -> None:
        """Raises Stopped: hashing what lies there may take minutes."""
        self._raw = raw
        self._path = Path(os.fsdecode(raw.name))
        self._file = file
        self._start()
        raw.seek(0)
        while chunk := raw.read(CHUNK_BYTES):
            stop.check()
            self._hash(chunk)
        self.resumed = self.count

    def restart(self) -> None:
        """Throw away what is there."""
        self._alone()
        self._raw.truncate(0)
        self._start()
        self.resumed = 0

    def append(self, chunk: bytes) -> None:
        """Raises OSError where there is no room for all of it; what was written stays and counts."""
        self._untouched()
        rest = memoryview(chunk)
        while rest:
            written = self._raw.write(rest)
            self._hash(rest[:written])
            rest = rest[written:]

    def mismatch(self) -> str | None:
        """How the bytes are not the locked ones, for people; None: they are, to the last."""
        if self.count != self._file.size:
            return f"expected {self._file.size} bytes, found {self.count}"
        for digest, locked in ((self._sha256, self._file.sha256), (self._git, self._file.git)):
            if digest and digest.hexdigest() != locked:
                return f"expected {digest.name} {locked}, found {digest.hexdigest()}"
        return None

    def seal(self, blob: Path) -> os.stat_result:
        """Rename it to its blob's name, on disk to the last byte. Only for one without mismatch."""
        os.fsync(self._raw.fileno())
        found = self._alone()
        try:
            self._path.replace(blob)
        except FileNotFoundError:
            raise self._shared() from None
        # As it was before: what somebody adds now must not pass for hashed.
        return found

    def is_ours(self) -> bool:
        """Whether the file is still where it was, with no bytes but ours."""
        try:
            self._alone()
        except Shared:
            return False
        return True

    def _alone(self) -> os.stat_result:
        found = self._untouched()
        try:
            there = self._path.lstat()
        except FileNotFoundError:
            raise self._shared() from None
        if not os.path.samestat(found, there):
            raise self._shared()
        return found

    def _untouched(self) -> os.stat_result:
        found = os.fstat(self._raw.fileno())
        if found.st_size != self.count:
            raise self._shared()
        return found

    def _shared(self) -> Shared:
        return Shared(
            f"another process writes `{self._file.path}` at the same time: file locks do not hold here",
            where=str(self._path),
            hint="HF_HOME=/a/local/disk ownweights pull  # or pull from one process at a time",
        )

    def _start(self) -> None:
        self.count = 0
        self._sha256 = hashlib.sha256()
        self._git = digests.git_blob(self._file.size) if self._file.git else None

    def _hash(self, chunk: bytes | memoryview) -> None:
        self.count += len(chunk)
        for digest in (self._sha256, self._git):
            if digest:
                digest.update(chunk)
