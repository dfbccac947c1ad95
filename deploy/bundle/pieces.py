"""An archive on disk: one file, or pieces of one size that are it when they are read one after the other.

FILE                         whole
FILE.000, FILE.001, …        split
FILE.part, FILE.000.part, …  while it is being written
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator
from pathlib import Path

from deploy.errors import UserError

CHUNK_BYTES = 1 << 20
LEAST_BYTES = 1_000_000
"""Of a piece: smaller ones are a slip of the pen."""
MOST = 1000
UNITS = {"kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "kiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kMGT]i?B)")
NUMBERED = re.compile(r"(.+)\.\d{3}")


def size(text: str) -> int:
    """Bytes of ``4GB``, ``700 MB``, ``1.5GiB``. Raises UserError."""
    match = SIZE.fullmatch(text.strip())
    if match is None:
        raise UserError(f"`{text}` is no size", hint=f"a number and one of {', '.join(UNITS)}: --split 4GB")
    found = int(float(match[1]) * UNITS[match[2]])
    if found < LEAST_BYTES:
        raise UserError(f"pieces of {found} bytes are too small: at least {LEAST_BYTES}", hint="--split 4GB")
    return found


def first(base: Path, piece: int | None) -> Path:
    """The file that begins an archive in pieces of that size; None: in one."""
    return base if piece is None else numbered(base, 0)


def numbered(base: Path, number: int) -> Path:
    return base.with_name(f"{base.name}.{number:03d}")


def part(path: Path) -> Path:
    """Its name while it is being written."""
    return path.with_name(f"{path.name}.part")


class Writing:
    """The archive while it is written, from where it ended: ``length`` bytes are there.

    ``piece`` is the size of a piece, None: one file. ``total`` is how long it will be. Raises UserError for too many
    pieces. The caller holds a lock on the part of the first.
    """

    def __init__(self, base: Path, piece: int | None, total: int) -> None:
        self._base = base
        self._piece = piece or total
        count = -(-total // self._piece)
        if count > MOST:
            raise UserError(f"{count} pieces are too many: at most {MOST}", hint="--split with a larger size")
        self.paths = tuple(numbered(base, i) for i in range(count)) if piece else (base,)
        self._parts = tuple(map(part, self.paths))
        for path in self.paths:
            # From a ``finish`` that was interrupted.
            if path.exists():
                path.replace(part(path))
        self.length = self._found()

    def append(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            number, used = divmod(self.length, self._piece)
            with self._parts[number].open("ab", buffering=0) as file:
                written = file.write(rest[: self._piece - used])
            self.length += written
            rest = rest[written:]

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """What lies there."""
        return _chunks(self._parts, self._piece, start, stop)

    def cut(self, length: int) -> None:
        """Throw away what lies behind."""
        for number, path in enumerate(self._parts):
            keep = min(max(length - number * self._piece, 0), self._piece)
            if path.exists() and path.stat().st_size > keep:
                os.truncate(path, keep)
        self.length = min(self.length, length)

    def sync(self, start: int) -> None:
        """To the disk, what was written since ``start``."""
        for number in range(start // self._piece, -(-self.length // self._piece)):
            with self._parts[number].open("rb") as file:
                os.fsync(file.fileno())

    def finish(self) -> None:
        """Under their names; the first comes last, so that where it is all are. Parts of other sizes go."""
        for path in reversed(self.paths):
            part(path).replace(path)
        for left in (*self._base.parent.glob(f"{glob.escape(self._base.name)}.[0-9][0-9][0-9].part"), part(self._base)):
            left.unlink(missing_ok=True)

    def _found(self) -> int:
        """Bytes in a row: behind a piece that is not full, or was one of another size, nothing counts."""
        length = 0
        for path in self._parts:
            there = path.stat().st_size if path.exists() else 0
            length += min(there, self._piece)
            if there != self._piece:
                break
        return length


class Reading:
    """The archive as it was carried here: ``path`` names all of it, its first piece, or what the pieces share.

    Raises UserError where there is no beginning of it.
    """

    def __init__(self, path: Path) -> None:
        numeral = NUMBERED.fullmatch(path.name)
        self.base = path.with_name(numeral[1]) if numeral else path
        self._split = numeral is not None or not path.exists()
        numbers = [i for i in range(MOST) if numbered(self.base, i).exists()] if self._split else [0]
        if 0 not in numbers:
            raise _absent(path, self.base)
        self.paths = tuple(numbered(self.base, i) for i in range(numbers[-1] + 1)) if self._split else (path,)
        self._sizes = tuple(found.stat().st_size if found.exists() else None for found in self.paths)
        self._piece = max(1, *(count for count in self._sizes if count is not None))

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """Chunks of at most 1 MiB; fewer bytes than asked for where a gap begins."""
        return _chunks(self.paths, self._piece, start, stop)

    def gaps(self, total: int) -> list[str]:
        """What an archive of that many bytes lacks, by name."""
        full = total // self._piece if self._split else 0
        wanted = [self._piece] * full + ([total - full * self._piece] if total > full * self._piece else [])
        missing = []
        for number, expected in enumerate(wanted):
            path = numbered(self.base, number) if self._split else self.base
            found = self._sizes[number] if number < len(self._sizes) else None
            if found is None:
                missing.append(f"`{path.name}` is missing, {expected} bytes")
            elif found < expected:
                missing.append(f"`{path.name}` lacks {expected - found} of {expected} bytes")
        return missing


def _chunks(paths: tuple[Path, ...], piece: int, start: int, stop: int) -> Iterator[bytes]:
    while start < stop and start // piece < len(paths) and paths[start // piece].exists():
        number, offset = divmod(start, piece)
        until = min(stop, (number + 1) * piece)
        with paths[number].open("rb", buffering=0) as file:
            file.seek(offset)
            while start < until:
                chunk = file.read(min(CHUNK_BYTES, until - start))
                if not chunk:
                    return
                start += len(chunk)
                yield chunk


def _absent(path: Path, base: Path) -> UserError:
    begun = [found for found in (part(base), part(numbered(base, 0))) if found.exists()]
    if begun:
        return UserError(
            "the bundle is not finished", where=str(begun[0]), hint="ownweights bundle export, where it was begun"
        )
    return UserError(
        f"no bundle here: neither `{base.name}` nor `{numbered(base, 0).name}`",
        where=str(path.parent.absolute()),
        hint="ownweights bundle import FILE  # its name, or that of its first piece",
    )
