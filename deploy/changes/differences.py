"""What differs between two texts or two JSON documents: bounded in time and length, whatever they hold. Pure."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Collection, Iterator
from itertools import islice
from typing import Any

import msgspec

TEXT_BYTES = 1_000_000
LINES = 2500
"""Python's diff takes cubic time on lines that were made for it: so many cost 2 s, twice as many 15."""
SHOWN_LINES = 200
LINE_CHARACTERS = 300
JSON_BYTES = 24 << 20
"""Vocabularies are the largest. Two documents of this size, made of empty lists, take 1 GB and 20 s."""
SHOWN_VALUES = 40
VALUE_CHARACTERS = 160
KEY_CHARACTERS = 200


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """One value that is another one now. ``before`` and ``after`` are JSON, cut where long; None: not there.

    Of a list that grew or shrank they are the numbers of items.
    """

    key: str
    """Nested keys are dotted, places in a list in brackets; ``[]``: an item of a list that grew or shrank."""
    before: str | None = None
    after: str | None = None
    meaning: str | None = None
    """What it decides, in words."""


class Values(msgspec.Struct, frozen=True, kw_only=True):
    """The first differences by key, and how many more there are."""

    shown: tuple[Value, ...]
    more: int = 0


class Incomparable(Exception):
    """Not text, not a JSON object, or too large. The message says which."""


def of_texts(before: bytes, after: bytes) -> tuple[str, ...]:
    """The lines of a unified diff, the first of them. Raises Incomparable."""
    old, new = _lines(before), _lines(after)
    # The two lines that would name the files say nothing: who shows this names them.
    lines = list(islice(difflib.unified_diff(old, new, lineterm=""), 2, None))
    more = [f"… {len(lines) - SHOWN_LINES} more lines"] if len(lines) > SHOWN_LINES else []
    return (*(_cut(line, LINE_CHARACTERS) for line in lines[:SHOWN_LINES]), *more)


def of_json(before: bytes, after: bytes, *, without: Collection[str] = ()) -> Values:
    """The values that differ, key by key in order; ``without`` some of the outermost.

    Raises Incomparable for what is no JSON object.
    """
    try:
        old, new = (
            {key: value for key, value in _document(content).items() if key not in without}
            for content in (before, after)
        )
        found = of_values(old, new)
        shown = tuple(islice(found, SHOWN_VALUES))
        return Values(shown=shown, more=sum(1 for _ in found))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise Incomparable("not a JSON object: only the digests are compared") from None


def of_values(before: object, after: object) -> Iterator[Value]:
    """The same of decoded JSON, without an end. Not recursive: nesting is the document's choice."""
    stack = [iter([("", before, after)])]
    while stack:
        entry = next(stack[-1], None)
        if entry is None:
            stack.pop()
            continue
        key, old, new = entry
        if isinstance(old, dict) and isinstance(new, dict):
            stack.append(_entries(key, old, new))
        elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
            stack.append(_places(key, old, new))
        elif isinstance(old, list) and isinstance(new, list):
            yield Value(key=key, before=f"{len(old)} items", after=f"{len(new)} items")
            yield from _items(key, old, new)
        elif type(old) is not type(new) or old != new:
            yield Value(key=key, before=_shown(old), after=_shown(new))


def refuse_large(size_bytes: int, *, document: bool) -> None:
    """Raises Incomparable for a text or a JSON ``document`` of more bytes than are compared."""
    most = JSON_BYTES if document else TEXT_BYTES
    if size_bytes > most:
        raise Incomparable(f"more than {most} bytes: only the digests are compared")


def _entries(key: str, old: dict[str, Any], new: dict[str, Any]) -> Iterator[tuple[str, object, object]]:
    prefix = f"{key}." if key else ""
    for name in sorted(old.keys() | new.keys()):
        yield f"{prefix}{name}"[:KEY_CHARACTERS], old.get(name, msgspec.UNSET), new.get(name, msgspec.UNSET)


def _places(key: str, old: list[Any], new: list[Any]) -> Iterator[tuple[str, object, object]]:
    for at, (before, after) in enumerate(zip(old, new, strict=True)):
        yield f"{key}[{at}]"[:KEY_CHARACTERS], before, after


def _items(key: str, old: list[Any], new: list[Any]) -> Iterator[Value]:
    """What only one of the two holds, wherever it stands."""
    before, after = (Counter(msgspec.json.encode(item) for item in items) for items in (old, new))
    for item in (before - after).elements():
        yield Value(key=f"{key}[]", before=_cut(item.decode(), VALUE_CHARACTERS))
    for item in (after - before).elements():
        yield Value(key=f"{key}[]", after=_cut(item.decode(), VALUE_CHARACTERS))


def _shown(value: object) -> str | None:
    return None if value is msgspec.UNSET else _cut(msgspec.json.encode(value).decode(), VALUE_CHARACTERS)


def _lines(content: bytes) -> list[str]:
    refuse_large(len(content), document=False)
    try:
        *lines, rest = content.decode().split("\n")
    except UnicodeDecodeError:
        raise Incomparable("not text: only the digests are compared") from None
    if len(lines) > LINES:
        raise Incomparable(f"more than {LINES} lines: only the digests are compared")
    return [*lines, f"{rest} (no line feed)"] if rest else lines


def _document(content: bytes) -> dict[str, Any]:
    refuse_large(len(content), document=True)
    return msgspec.json.decode(content, type=dict[str, Any])


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text)} characters)"
