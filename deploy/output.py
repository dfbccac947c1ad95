"""The one way to speak: data on stdout, everything else on stderr.

Modes: human (default), json (``--json``), quiet (``-q``: ids only). Nothing is only said by colour,
and no colour is used, so NO_COLOR needs no code.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from rich.progress import Progress

    from deploy.errors import OwnweightsError

UNKNOWN = "unknown"
_warned: set[str] = set()


def data(text: str) -> None:
    """One line of data. A reader that has left (`| head -1`) is no failure, and hears no more."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def dump(value: object) -> None:
    """A noun or plain value as JSON on stdout, two-space indented."""
    data(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Left-aligned columns; None is printed as ``unknown``."""
    lines = [list(header), *([UNKNOWN if cell is None else str(cell) for cell in row] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    for line in lines:
        data("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def say(text: str) -> None:
    """Progress of the work, for the person who watches."""
    # In one piece, because threads of a pull speak at the same time. Without a stderr, print would take stdout.
    if sys.stderr is not None:
        print(f"{text}\n", end="", file=sys.stderr, flush=True)


def warn(text: str, *, about: str | None = None) -> None:
    """Something the user should know, though the work goes on. Loud once per subject, plain after that."""
    if about is not None and about in _warned:
        say(text)
        return
    if about is not None:
        _warned.add(about)
    say(f"warning: {text}")


def fail(error: OwnweightsError) -> None:
    """``error:`` and, where there is one, ``hint:``."""
    say(f"error: {error}")
    if error.hint:
        say(f"hint: {error.hint}")


def progress() -> Progress:
    """A rich progress on stderr with bytes, rate and time left; silent when nobody watches."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    console = Console(file=sys.stderr, no_color=True)
    off = not console.is_terminal or "OWNWEIGHTS_NO_PROGRESS" in os.environ
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=off,
    )


def size(count: int | None) -> str:
    """Bytes for people: powers of 1000, as disks and download pages count."""
    if count is None:
        return UNKNOWN
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit in ("B", "kB", "MB") else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.2f} TB"
