"""Where in a TOML text a value stands: `tomllib` keeps no positions, and an error without a line is a search.

The text must be one that `tomllib` has read. Comments, blank lines, quoted and dotted keys, and keys in any order
are followed; nothing is assumed of how it was written.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator

Steps = tuple[str | int, ...]
"""From the root down: keys, and positions in lists."""

TOKEN = re.compile(
    r'''"""(?:\\.|[^\\])*?"{3,5}'''  # strings, the long ones first: quotes, brackets and # in them mean nothing
    r"""|'''.*?'{3,5}"""
    r'''|"(?:\\.|[^"\\\n])*"'''
    r"""|'[^'\n]*'"""
    r"""|\#[^\n]*|\n|[\[\]{},=.]|[^\s"'\#\[\]{},=.]+""",
    re.DOTALL,
)
END = ""


def find(text: str, steps: Steps) -> int:
    """The line, from 1, on which the value begins: of a table its header. Where it is not there, the nearest above."""
    depth, line = 0, 1
    for seen, number in _Walk(text).document():
        if len(seen) > depth and steps[: len(seen)] == seen:
            depth, line = len(seen), number
        if depth == len(steps):
            break
    return line


class _Walk:
    """One pass over the tokens. Every table, key and element is told with its line, outer ones first."""

    def __init__(self, text: str) -> None:
        self._rest = _tokens(text)
        self._elements: dict[Steps, int] = {}
        """Of every [[table]]: the number of its element that is written at the moment."""
        self._advance()

    def document(self) -> Iterator[tuple[Steps, int]]:
        table: Steps = ()
        while self.token != END:
            line = self.line
            if self.token == "\n":
                self._advance()
            elif self.token == "[":
                table = self._header()
                yield table, line
            else:
                yield from self._assignment(table)

    def _header(self) -> Steps:
        self._advance()
        repeated = self.token == "["
        if repeated:
            self._advance()
        table: Steps = ()
        for key in self._key("]"):
            table = (*self._inside(table), key)
        if repeated:
            self._advance()
            self._elements[table] = self._elements.get(table, -1) + 1
        return self._inside(table)

    def _inside(self, table: Steps) -> Steps:
        return (*table, self._elements[table]) if table in self._elements else table

    def _assignment(self, table: Steps) -> Iterator[tuple[Steps, int]]:
        line, steps = self.line, table
        for key in self._key("="):
            steps = (*steps, key)
            yield steps, line
        yield from self._value(steps)

    def _key(self, end: str) -> Iterator[str]:
        while self.token not in (end, END):
            if self.token != ".":
                yield _plain(self.token)
            self._advance()
        self._advance()

    def _value(self, steps: Steps) -> Iterator[tuple[Steps, int]]:
        if self.token == "[":
            yield from self._list(steps)
        elif self.token == "{":
            yield from self._inline(steps)
        else:
            while self.token not in (",", "]", "}", "\n", END):
                self._advance()

    def _list(self, steps: Steps) -> Iterator[tuple[Steps, int]]:
        index = 0
        self._advance()
        while self.token not in ("]", END):
            if self.token in (",", "\n"):
                self._advance()
                continue
            yield (*steps, index), self.line
            yield from self._value((*steps, index))
            index += 1
        self._advance()

    def _inline(self, steps: Steps) -> Iterator[tuple[Steps, int]]:
        self._advance()
        while self.token not in ("}", END):
            if self.token in (",", "\n"):
                self._advance()
            else:
                yield from self._assignment(steps)
        self._advance()

    def _advance(self) -> None:
        self.line, self.token = next(self._rest, (0, END))


def _tokens(text: str) -> Iterator[tuple[int, str]]:
    """Each with the line that it begins on; comments are left out."""
    line = 1
    for found in TOKEN.finditer(text):
        token = found[0]
        if not token.startswith("#"):
            yield line, token
        line += token.count("\n")


def _plain(key: str) -> str:
    """Without its quotes and escapes."""
    return str(tomllib.loads(f"key = {key}")["key"]) if key[0] in "\"'" else key
