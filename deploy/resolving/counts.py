"""Numbers that a model says of itself, where they are ones that a model can have. Anything else is not known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deploy.dimensions import MOST


def whole(table: Mapping[str, Any], key: str) -> int | None:
    """The number of that name: 0 or more, and within reason."""
    value = table.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 48 else None


def some(table: Mapping[str, Any], key: str) -> int | None:
    """The same of what there is at least one of: layers, heads, a width."""
    value = whole(table, key)
    return value if value and value <= MOST else None


def below(values: Mapping[str, Any], name: str | None) -> dict[str, Any]:
    """A GGUF's keys that begin with that name and a dot, without them."""
    return {key.removeprefix(f"{name}."): value for key, value in values.items() if key.startswith(f"{name}.")}
