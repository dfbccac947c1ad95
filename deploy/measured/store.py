"""Where measurements are kept: lines of JSON in one file of the state dir, replaced as a whole.

Losing them costs accuracy, never a plan: a line that cannot be read is left out, with a warning, and the file is set
aside before it is written again.
"""

from __future__ import annotations

import os
import shlex
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

import msgspec

from deploy import atomic, flock, output, paths
from deploy.engine import Figures
from deploy.errors import UserError
from deploy.measured import Entry, Known, bounds

KEPT = 16
"""Starts of the same bytes, box and engine version, and as many corrections, and as many with a measured speed."""
MOST = 1000
"""Entries of all models together."""
MOST_BYTES = 8_000_000
"""Of the file: ten times what that many entries take. More was not written here."""
BROKEN = (msgspec.MsgspecError, ValueError, RecursionError)


def file() -> Path:
    """The file."""
    return paths.state_dir() / "measured.jsonl"


def read() -> Known:
    """All that is kept. Changes nothing on disk, and never fails."""
    path = file()
    try:
        # Without waiting: a pipe in the file's place has nobody at its other end.
        with FileIO(path, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as found:
            fault = _fault(found)
            data = b"" if fault else found.readall()
    except FileNotFoundError:
        return Known()
    except OSError as error:
        fault, data = error.strerror, b""
    if fault:
        output.warn(f"earlier measurements cannot be read: {fault} (`{path}`)")
        return Known()
    entries, broken = _parsed(data)
    if broken:
        output.warn(f"{broken} earlier measurement(s) cannot be read, and are left out (`{path}`)")
    return Known(entries=tuple(_bounded(entries)))


def add(entry: Entry) -> None:
    """Raises OSError where it cannot be written, UserError where something else is in the file's place."""
    with _changing() as entries:
        entries.append(bounds.told(entry))


def amend(wanted: Callable[[Entry], bool], change: Callable[[Figures], Figures]) -> bool:
    """Changes what was measured in the newest entry that is wanted; False where there is none. Raises as ``add``."""
    with _changing() as entries:
        for index in reversed(range(len(entries))):
            if wanted(entries[index]):
                measured = bounds.plausible(change(entries[index].measured))
                entries[index] = msgspec.structs.replace(entries[index], measured=measured)
                return True
    return False


def forget(wanted: Callable[[Entry], bool]) -> None:
    """Removes entries. Raises as ``add``; where none is wanted nothing is written."""
    if any(map(wanted, read().entries)):
        with _changing() as entries:
            entries[:] = [entry for entry in entries if not wanted(entry)]


@contextmanager
def _changing() -> Iterator[list[Entry]]:
    """The entries, written back at the end if they are others. One process at a time."""
    path = file()
    with flock.held(path) as held:
        aside = path.with_name(f"{path.name}.damaged")
        data = _whole(held, path, aside)
        entries, broken = _parsed(data)
        before = entries.copy()
        yield entries
        if broken:
            atomic.write(aside, data, mode=0o600)
            output.warn(f"{broken} earlier measurement(s) cannot be read: set aside as `{aside}`")
        if broken or entries != before:
            lines = msgspec.json.Encoder().encode_lines(_bounded(entries))
            atomic.write(path, lines, mode=0o600)


def _whole(held: FileIO, path: Path, aside: Path) -> bytes:
    """Its content; none of a file that is far too large, which is set aside. Raises UserError for what is no file."""
    fault = _fault(held)
    if fault is None:
        held.seek(0)
        return held.readall()
    if not stat.S_ISREG(os.fstat(held.fileno()).st_mode):
        raise UserError(f"{fault} is in the way", where=str(path), hint=f"rm {shlex.quote(str(path))}")
    output.warn(f"earlier measurements cannot be read: {fault}, set aside as `{aside}`")
    path.replace(aside)
    return b""


def _fault(file: FileIO) -> str | None:
    """What keeps it from being read to its end; None where nothing does."""
    found = os.fstat(file.fileno())
    if not stat.S_ISREG(found.st_mode):
        return "something that is no regular file"
    return f"it has {output.size(found.st_size)}" if found.st_size > MOST_BYTES else None


def _parsed(data: bytes) -> tuple[list[Entry], int]:
    """The entries, and how many lines are none."""
    decoder = msgspec.json.Decoder(Entry)
    with suppress(*BROKEN):
        entries = decoder.decode_lines(data)
        if all(map(bounds.sound, entries)):
            return entries, 0
    lines = [line for line in data.split(b"\n") if line.strip()]
    entries = []
    for line in lines:
        with suppress(*BROKEN):
            entry = decoder.decode(line)
            if bounds.sound(entry):
                entries.append(entry)
    return entries, len(lines) - len(entries)


def _bounded(entries: list[Entry]) -> list[Entry]:
    """Kinds are counted apart, so that many restarts do not push the one measured speed out."""
    seen: Counter[object] = Counter()
    kept = []
    for entry in reversed(entries):
        kind = (entry.subject, entry.correction is None, entry.measured.tokens_per_s is None)
        seen[kind] += 1
        if seen[kind] <= KEPT:
            kept.append(entry)
    return kept[:MOST][::-1]
