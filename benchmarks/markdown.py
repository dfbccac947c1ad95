"""Markdown tables that are also readable in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

UNKNOWN = "unknown"


def table(header: Sequence[str], rows: Sequence[Sequence[str | None]]) -> str:
    """Padded columns, those with figures to the right. None is printed as ``unknown``."""
    lines = [list(header), *([UNKNOWN if cell is None else cell for cell in row] for row in rows)]
    columns = [_padded(column) for column in zip(*lines, strict=True)]
    return "\n".join(f"| {' | '.join(line)} |" for line in zip(*columns, strict=True))


def _padded(column: Sequence[str]) -> list[str]:
    """A heading, its rule and its cells, all of one width."""
    heading, *cells = column
    width = max(3, *(len(cell) for cell in column))
    right = any(cell[:1].isdigit() or cell.startswith("$") for cell in cells)
    rule = "-" * (width - 1) + (":" if right else "-")
    return [cell.rjust(width) if right else cell.ljust(width) for cell in (heading, rule, *cells)]


def bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
