"""TOML in one form only: the same tables are always the same bytes, and an entry of a list has a line of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

BARE = re.compile(r"[A-Za-z0-9_-]+")


def text(tables: dict[str, Any], headed: frozenset[str]) -> str:
    """Keys stay in the order given. Lists of tables under a key of ``headed`` become ``[[…]]`` tables, others inline.

    None, empty lists and empty tables are left out: to a reader with defaults they are the same.
    """
    return "\n".join(_table(tables, (), headed)) + "\n"


def _table(table: dict[str, Any], name: tuple[str, ...], headed: frozenset[str]) -> Iterator[str]:
    """Plain values first, then sub-tables, as TOML demands."""
    nested = {}
    for key, value in table.items():
        if isinstance(value, dict) or (key in headed and _is_tables(value)):
            nested[key] = value
        elif value is not None and value != []:
            yield f"{_key(key)} = {_value(value)}"
    for key, value in nested.items():
        header = ".".join(_key(part) for part in (*name, key))
        for entry in value if isinstance(value, list) else [value]:
            lines = list(_table(entry, (*name, key), headed))
            if lines:
                yield f"\n[[{header}]]" if isinstance(value, list) else f"\n[{header}]"
                yield from lines


def _is_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(entry, dict) for entry in value)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, dict):
        pairs = (f"{_key(key)} = {_value(entry)}" for key, entry in value.items() if entry is not None)
        return f"{{ {', '.join(pairs)} }}"
    if _is_tables(value):
        return "[\n" + "".join(f"  {_value(entry)},\n" for entry in value) + "]"
    if isinstance(value, list):
        return f"[{', '.join(_value(entry) for entry in value)}]"
    return _string(value)


def _key(key: str) -> str:
    return key if BARE.fullmatch(key) else _string(key)


def _string(value: str) -> str:
    """JSON's escapes are TOML's; DEL is the one control character that JSON leaves as it is."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
