"""Where measurements are kept: lines of JSON in one file of the state dir, replaced as a whole.

Losing them costs accuracy, never a plan: a line that cannot be read is left out, with a warning, and the file is set
aside before it is written again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from deploy import atomic, flock, output, paths
from deploy.engine import Figures
from deploy.measured import Entry, Known

KEPT = 16
"""Starts of the same bytes, box and engine version, and as many corrections, and as many with a measured speed."""
MOST = 1000
"""Entries of all models together."""
BROKEN = (msgspec.MsgspecError, ValueError, RecursionError)


def file() -> Path:
    """The file."""
    return paths.state_dir() / "measured.jsonl"


def read() -> Known:
    """All that is kept. Changes nothing on disk, and never fails."""
    path = file()
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Known()
    except OSError as error:
        output.warn(f"earlier measurements cannot be read: {error.strerror} (`{path}`)")
        return Known()
    entries, broken = _parsed(data)
    if broken:
        output.warn(f"{broken} earlier measurement(s) cannot be read, and are left out (`{path}`)")
    return Known(entries=tuple(entries))


def add(entry: Entry) -> None:
    """Raises OSError where it cannot be written, UserError where something else is in the file's place."""
    with _changing() as entries:
        entries.append(entry)


def amend(wanted: Callable[[Entry], bool], change: Callable[[Figures], Figures]) -> bool:
    """Changes what was measured in the newest entry that is wanted; False where there is none. Raises as ``add``."""
    with _changing() as entries:
        for index in reversed(range(len(entries))):
            if wanted(entries[index]):
                entries[index] = msgspec.structs.replace(entries[index], measured=change(entries[index].measured))
                return True
    return False


@contextmanager
def _changing() -> Iterator[list[Entry]]:
    """The entries, written back at the end if they are others. One process at a time."""
    path = file()
    with flock.held(path) as held:
        held.seek(0)
        data = held.readall()
        entries, broken = _parsed(data)
        before = entries.copy()
        yield entries
        if broken:
            aside = path.with_name(f"{path.name}.damaged")
            atomic.write(aside, data, mode=0o600)
            output.warn(f"{broken} earlier measurement(s) cannot be read: set aside as `{aside}`")
        if broken or entries != before:
            lines = msgspec.json.Encoder().encode_lines(_bounded(entries))
            atomic.write(path, lines, mode=0o600)


def _parsed(data: bytes) -> tuple[list[Entry], int]:
    """The entries, and how many lines are none."""
    decoder = msgspec.json.Decoder(Entry)
    with suppress(*BROKEN):
        return decoder.decode_lines(data), 0
    lines = [line for line in data.split(b"\n") if line.strip()]
    entries = []
    for line in lines:
        with suppress(*BROKEN):
            entries.append(decoder.decode(line))
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
