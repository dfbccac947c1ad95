"""TOML text into a struct of ours, where every error names its line and an unknown key the nearest known one."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from deploy import lines
from deploy.lines import Steps

LINE_CHARACTERS, KEY_DOTS = 1 << 16, 8
"""Nothing of ours comes near. A TOML reader's time grows with the square of a key's parts: minutes for one line."""
SILENT = re.compile(r"""\"{3}|'{3}|\"|'|\#""")
"""Where a string or a comment begins, in which a dot means nothing."""
CLOSING = {
    '"""': re.compile(r'\\.|"{3,5}', re.DOTALL),
    "'''": re.compile(r"'{3,5}"),
    '"': re.compile(r'\\[^\n]|"|\n'),
    "'": re.compile(r"'|\n"),
    "#": re.compile(r"\n"),
}
"""What may end it, and what an escape hides."""
LINE = re.compile(r"line (\d+)")
STEP = re.compile(r"\.([^.\[\]`]+)|\[(\d+)\]")
UNKNOWN_KEY = re.compile("Object contains unknown field `(.*)`", re.DOTALL)

Kind = TypeVar("Kind", bound=msgspec.Struct)


class Undecodable(Exception):
    """What is wrong, on which line (from 1; None: it cannot be told), and what may have been meant."""

    def __init__(self, rule: str, line: int | None, hint: str | None = None) -> None:
        super().__init__(rule)
        self.line = line
        self.hint = hint


def tables(text: str, *, number: Callable[[str], Any] = float) -> dict[str, Any]:
    """The plain tables of any text, in a time that its length bounds. ``number`` reads what has a decimal point.

    Raises Undecodable.
    """
    _refuse_slow(text)
    try:
        text.encode()
        return tomllib.loads(text, parse_float=number)
    except UnicodeEncodeError as error:
        raise Undecodable("half a character", text.count("\n", 0, error.start) + 1) from error
    except RecursionError as error:
        raise Undecodable("lists within lists, without end", None) from error
    except ValueError as error:
        said, _, position = str(error).partition(" (at ")
        found = LINE.match(position)
        last = text.rstrip("\n").count("\n") + 1
        raise Undecodable(f"not valid TOML: {said}", int(found[1]) if found else last if position else None) from error


def _refuse_slow(text: str) -> None:
    spoken = lines = text.split("\n")
    if any(line.count(".") > KEY_DOTS for line in lines):
        spoken = _spoken(text).split("\n")
    for number, (line, keys) in enumerate(zip(lines, spoken, strict=True), 1):
        if len(line) > LINE_CHARACTERS or keys.count(".") > KEY_DOTS:
            raise Undecodable("a line that is too long, or a key of too many parts", number)


def _spoken(text: str) -> str:
    """Without strings and comments, line by line. No character is looked at twice, whatever the text is."""
    kept, position = [], 0
    while found := SILENT.search(text, position):
        end = _closed(text, found[0], found.end())
        kept += [text[position : found.start()], "\n" * text.count("\n", found.start(), end)]
        position = end
    return "".join([*kept, text[position:]])


def _closed(text: str, opening: str, start: int) -> int:
    """Where it ends; the end of the text for one that does not: nothing is read after it."""
    for found in CLOSING[opening].finditer(text, start):
        if found[0] == "\n":
            return found.start()
        if not found[0].startswith("\\"):
            return found.end()
    return len(text)


def typed(found: dict[str, Any], text: str, kind: type[Kind]) -> Kind:
    """The tables of ``text`` as ``kind``. Raises Undecodable for a key or a type that it does not have."""
    try:
        return msgspec.convert(found, kind)
    except msgspec.ValidationError as error:
        raise _mistyped(str(error), text, kind) from error


def _mistyped(message: str, text: str, kind: type[Kind]) -> Undecodable:
    """Of msgspec's ``… - at `$.model[0].name` ``."""
    rule, _, path = message.rpartition(" - at `$") if " - at `$" in message else (message, "", "")
    at: Steps = tuple(int(index) if index else key for key, index in STEP.findall(path))
    unknown = UNKNOWN_KEY.fullmatch(rule)
    if unknown is None:
        stands = f" at `{path.strip('`.')}`" if path else ""
        return Undecodable(f"{rule[0].lower()}{rule[1:]}{stands}", lines.find(text, at))
    key, known = unknown[1], _keys(kind, at)
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"did you mean `{near[0]}`?" if near else f"known here: {', '.join(known)}"
    return Undecodable(f"unknown key {key!r:.80}", lines.find(text, (*at, key)), hint)


def _keys(kind: type[Kind], at: Steps) -> list[str]:
    """What the table at that place may hold."""
    table: Any = msgspec.inspect.type_info(kind)
    for step in (key for key in at if isinstance(key, str)):
        table = next(field.type for field in table.fields if field.encode_name == step)
        table = getattr(table, "item_type", table)
        table = next((one for one in getattr(table, "types", ()) if hasattr(one, "fields")), table)
    return [field.encode_name for field in table.fields]
