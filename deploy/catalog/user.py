"""Rows that a user adds: every ``*.toml`` in the folder ``catalog`` of the configuration, in the form of our own."""

from __future__ import annotations

import shlex
from datetime import date
from pathlib import Path

from deploy import decoding, lines
from deploy.catalog import checks
from deploy.catalog.rows import Family, Row
from deploy.decoding import Undecodable
from deploy.errors import ConfigError
from deploy.lines import Steps


def rows(folder: Path, today: date) -> dict[str, Row]:
    """By id, file by file. Raises ConfigError for the first thing that is wrong, naming file and line."""
    found: dict[str, Row] = {}
    for path in sorted(folder.glob("*.toml")):
        text = _text(path)
        for number, row in enumerate(_family(path, text).model):
            if row.id in found:
                raise _error(path, text, ("model", number, "id"), f"`{row.id}` is described twice")
            for flaw in checks.flaws(row, today):
                at: Steps = ("model", number, *flaw.at)
                raise _error(path, text, at, f"`{'.'.join(map(str, flaw.at))}` of `{row.id}` {flaw.rule}")
            found[row.id] = row
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"a file of the catalogue cannot be read: {error}", where=str(path), hint=_hint(path)
        ) from error


def _family(path: Path, text: str) -> Family:
    try:
        return decoding.typed(decoding.tables(text), text, Family)
    except Undecodable as error:
        where = f"{path}:{error.line}" if error.line else str(path)
        raise ConfigError(f"a row of the catalogue: {error}", where=where, hint=error.hint or _hint(path)) from error


def _error(path: Path, text: str, at: Steps, rule: str) -> ConfigError:
    return ConfigError(f"a row of the catalogue: {rule}", where=f"{path}:{lines.find(text, at)}", hint=_hint(path))


def _hint(path: Path) -> str:
    return f"correct it, or set it aside: mv {shlex.quote(str(path))} {shlex.quote(f'{path}.off')}"
