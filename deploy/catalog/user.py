"""Rows that a user adds: every ``*.toml`` in the folder ``catalog`` of the configuration, in the form of our own."""

from __future__ import annotations

import os
import shlex
import stat
from datetime import date
from pathlib import Path

from deploy import decoding, lines
from deploy.catalog import rules
from deploy.catalog.rows import Family, Row
from deploy.decoding import Undecodable
from deploy.errors import ConfigError
from deploy.lines import Steps

MOST_BYTES = 4 << 20
"""Ten thousand rows have 2 MB."""


def rows(folder: Path, today: date) -> dict[str, Row]:
    """By id, file by file. Raises ConfigError for the first thing that is wrong, naming file and line."""
    found: dict[str, Row] = {}
    for path in _files(folder):
        text = _text(path)
        for number, row in enumerate(_family(path, text).model):
            if row.id in found:
                raise _error(path, text, ("model", number, "id"), f"`{row.id}` is described twice")
            for flaw in rules.flaws(row, today):
                at: Steps = ("model", number, *flaw.at)
                raise _error(path, text, at, f"`{'.'.join(map(str, flaw.at))}` of `{row.id}` {flaw.rule}")
            found[row.id] = row
    return found


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.suffix == ".toml")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigError(
            f"the catalogue's folder cannot be read: {error.strerror}", where=str(folder), hint=_hint(folder)
        ) from error


def _text(path: Path) -> str:
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OSError("not a plain file")
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise OSError(f"more than {MOST_BYTES} bytes")
        return content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"a file of the catalogue cannot be read: {error}", where=str(path), hint=_hint(path)
        ) from error


def _without_waiting(path: str, flags: int) -> int:
    """A pipe would be waited for until someone writes to it."""
    return os.open(path, flags | os.O_NONBLOCK)


def _family(path: Path, text: str) -> Family:
    try:
        return decoding.typed(decoding.tables(text), text, Family)
    except Undecodable as error:
        where = f"{path}:{error.line}" if error.line else str(path)
        raise ConfigError(f"a row of the catalogue: {error}", where=where, hint=_hint(path, error.hint)) from error


def _error(path: Path, text: str, at: Steps, rule: str) -> ConfigError:
    return ConfigError(f"a row of the catalogue: {rule}", where=f"{path}:{lines.find(text, at)}", hint=_hint(path))


def _hint(path: Path, meant: str | None = None) -> str:
    aside = f"mv {shlex.quote(str(path))} {shlex.quote(f'{path}.off')}"
    if meant is None:
        return f"correct it, or set it aside: {aside}"
    return f"{meant}{'' if meant.endswith('?') else '.'} Or set the file aside: {aside}"
