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
SHOWN = 10
"""So many missing pieces are named."""
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
    """The file that begins an archive in pieces of that size; None: in one. Raises UserError for a piece's own name."""
    if NUMBERED.fullmatch(base.name):
        raise UserError(
            f"`{base.name}` ends like a piece of a bundle, and would be read as one",
            hint=f"ownweights bundle export '{base}.tar'",
        )
    return base if piece is None else numbered(base, 0)


def numbered(base: Path, number: int) -> Path:
    return base.with_name(f"{base.name}.{number:03d}")


def part(path: Path) -> Path:
    """Its name while it is being written."""
    return path.with_name(f"{path.name}.part")


def numbers(base: Path) -> list[int]:
    """Of the pieces that lie there."""
    return [number for number in range(MOST) if numbered(base, number).exists()]


class Writing:
    """The archive while it is written, from where it ended: ``length`` bytes are there.

    ``piece`` is the size of a piece, None: one file. ``total`` is how long it will be. Raises UserError, with nothing
    changed, for too many pieces, or where files lie that would be taken for pieces of this one. The caller holds a lock
    on the part of the first.
    """

    def __init__(self, base: Path, piece: int | None, total: int) -> None:
        self._base = base
        self._piece = piece or total
        count = -(-total // self._piece)
        if count > MOST:
            raise UserError(f"{count} pieces are too many: at most {MOST}", hint="--split with a larger size")
        self.paths = tuple(numbered(base, i) for i in range(count)) if piece else (base,)
        self._parts = tuple(map(part, self.paths))
        there = [path for path in (base, *(numbered(base, i) for i in numbers(base))) if piece and path.exists()]
        if there and not self._half_finished(there, total):
            raise UserError(
                f"{len(there)} file(s) of another bundle lie there, and would be taken for pieces of this one",
                where=str(there[0]),
                hint=f"rm '{base}'*  # or export to another name",
            )
        for path in there:
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

    def _half_finished(self, there: list[Path], total: int) -> bool:
        """Whether a ``finish`` was interrupted: the last pieces have their names, the others not yet, all are whole."""
        begun = len(self.paths) - len(there)
        found = (*self._parts[:begun], *self.paths[begun:])
        sizes = [min(self._piece, total - number * self._piece) for number in range(len(found))]
        return (
            there == list(self.paths[begun:])
            and not any(path.exists() for path in self._parts[begun:])
            and sizes == [path.stat().st_size if path.exists() else None for path in found]
        )

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
        there = numbers(self.base) if self._split else [0]
        if 0 not in there:
            raise _absent(path, self.base)
        self.pieces = len(there)
        self.paths = tuple(numbered(self.base, i) for i in range(there[-1] + 1)) if self._split else (path,)
        self._sizes = tuple(found.stat().st_size if found.exists() else None for found in self.paths)
        counts = [count for count in self._sizes if count is not None]
        self._piece, self.length = max(1, *counts), sum(counts)

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """Chunks of at most 1 MiB; fewer bytes than asked for where a gap begins."""
        return _chunks(self.paths, self._piece, start, stop)

    def gaps(self, total: int) -> list[str]:
        """What an archive of that many bytes lacks, by name, for people.

        How large its pieces are stands nowhere: as large as the largest here, where there is more than one.
        """
        piece = self._piece if self._split else total
        count = -(-total // piece)
        if count > MOST or (count > 1 and self.pieces == 1):
            return [f"{self.length} of {total} bytes are here, in {self.pieces} piece(s); how many follow is not known"]
        missing = []
        for number in range(count):
            path = numbered(self.base, number) if self._split else self.base
            expected = min(piece, total - number * piece)
            found = self._sizes[number] if number < len(self._sizes) else None
            if found is None:
                missing.append(f"`{path.name}` is missing, {expected} bytes")
            elif found < expected:
                missing.append(f"`{path.name}` lacks {expected - found} of {expected} bytes")
        more = len(missing) - SHOWN
        return [*missing[:SHOWN], f"and {more} more"] if more > 0 else missing


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
