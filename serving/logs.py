"""Log files for people: the last lines, then what is added."""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path

from deploy import output
from deploy.errors import UserError

POLL_S = 0.2


def show(path: Path, *, lines: int, follow: bool) -> None:
    """Prints the last ``lines``; with ``follow`` goes on until interrupted, over a rotation too."""
    if not path.exists():
        raise UserError("nothing has been logged yet", where=str(path), hint="make deploy")
    with path.open(errors="replace") as file:
        for line in deque(file, maxlen=lines):
            output.data(line.rstrip("\n"))
        end = file.tell()
    while follow:
        time.sleep(POLL_S)
        end = _added(path, end)


def _added(path: Path, end: int) -> int:
    """Prints what lies after byte ``end``; returns the new end. A file that got shorter was begun anew."""
    if not path.exists():
        return end
    with path.open(errors="replace") as file:
        file.seek(end if path.stat().st_size >= end else 0)
        for line in file:
            output.data(line.rstrip("\n"))
        return file.tell()
