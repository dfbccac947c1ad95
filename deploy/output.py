"""The one way to speak: data on stdout, everything else on stderr.

Modes: human (default), json (``--json``), quiet (``-q``: ids only). Nothing is only said by colour,
and no colour is used, so NO_COLOR needs no code.

What is printed may come from files, logs, hardware or a command line: nothing of it steers the terminal, and a newline
in a value forges no line of ours.
"""

from __future__ import annotations

import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from rich.progress import Progress

    from deploy.errors import OwnweightsError

UNKNOWN = "unknown"
NOT_PLAIN = re.compile(r"[^ -~]")
NOT_PLAIN_TEXT = re.compile(r"[^ -~\n\t]")
"""Lines and tabs are layout in a text, and something that was smuggled in within a value."""
UNINDENTED = re.compile(r"\n(?! )")
_warned: set[str] = set()


def take_any_character() -> None:
    """What the encoding of stdout or stderr lacks (LC_ALL=POSIX) is written as an escape from now on."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def printable(value: str) -> str:
    """One value in one line: what steers a terminal is shown as what it is."""
    return NOT_PLAIN.sub(_shown, value)


def data(text: str) -> None:
    """One line of data, or several. A reader that has left (`| head -1`) is no failure, and hears no more."""
    _print(NOT_PLAIN_TEXT.sub(_shown, text))


def dump(value: object) -> None:
    """A noun or plain value as JSON on stdout, two-space indented. Its own escapes stand for what cannot be printed."""
    text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    _print(NOT_PLAIN_TEXT.sub(_json_writer(getattr(sys.stdout, "encoding", None) or "ascii"), text))


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Left-aligned columns; None is printed as ``unknown``."""
    lines = [list(header), *([UNKNOWN if cell is None else printable(str(cell)) for cell in row] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    for line in lines:
        data("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _print(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _shown(found: re.Match[str]) -> str:
    return found[0] if found[0].isprintable() else found[0].encode("unicode_escape").decode()


def _json_writer(encoding: str) -> Callable[[re.Match[str]], str]:
    """Beyond ASCII only strings have characters, so that each can be written as JSON's escape wherever it stands."""

    def written(found: re.Match[str]) -> str:
        fits = found[0].encode(encoding, errors="ignore")
        return found[0] if fits and found[0].isprintable() else json.dumps(found[0])[1:-1]

    return written


def say(text: str) -> None:
    """Progress of the work, for the person who watches."""
    # In one piece, because threads of a pull speak at the same time. Without a stderr, print would take stdout.
    if sys.stderr is not None:
        print(f"{NOT_PLAIN_TEXT.sub(_shown, text)}\n", end="", file=sys.stderr, flush=True)


def warn(text: str, *, about: str | None = None) -> None:
    """Something the user should know, though the work goes on. Loud once per subject, plain after that."""
    if about is not None and about in _warned:
        say(_indented(text))
        return
    if about is not None:
        _warned.add(about)
    say(f"warning: {_indented(text)}")


def fail(error: OwnweightsError) -> None:
    """``error:`` and, where there is one, ``hint:``."""
    say(f"error: {_indented(str(error))}")
    if error.hint:
        say(f"hint: {_indented(error.hint)}")


def _indented(text: str) -> str:
    """Later lines stand below the first: a name with a newline in it cannot pass for a hint of ours."""
    return UNINDENTED.sub("\n  ", text)


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
