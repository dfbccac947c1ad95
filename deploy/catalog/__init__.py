"""The catalogue: models whose facts and bytes were checked, one TOML file per family beside this code.

A row that carries commit, size and sha256 of a GGUF is pinned: it locks without any network. Users add rows, or
replace ours, by files of the same form (``deploy.catalog.user``).
"""

from __future__ import annotations

import difflib
import tomllib
from datetime import date
from functools import cache
from pathlib import Path

import msgspec

from deploy import paths
from deploy.catalog import user
from deploy.catalog.rows import Family, Gguf, Licence, Row, Weights
from deploy.errors import ConfigError

__all__ = ["Gguf", "Licence", "Row", "Weights", "architectures", "find", "ours", "rows", "users"]


def rows() -> tuple[Row, ...]:
    """Every row, family by family, in the order of the files; then those that users added.

    Files are read once per process. Raises ConfigError for one of a user's that cannot be read.
    """
    return _joined(paths.catalogue_dir())


def users() -> frozenset[str]:
    """Ids of the rows that are a user's own. Raises ConfigError as ``rows``."""
    return frozenset(_theirs(paths.catalogue_dir()))


def find(name: str) -> Row:
    """The row with this id. Raises ConfigError with the nearest ids."""
    known = {row.id: row for row in rows()}
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    listed = "did you mean " + " or ".join(f"`{one}`" for one in near) + "?" if near else "`ownweights models` lists it"
    raise ConfigError(f"`{name}` is not in the catalogue", hint=f'{listed} Any other model: source = "hf:org/repo"')


def architectures() -> frozenset[str]:
    """Classes that the engines have themselves, so that a repository's own code is not needed to build them.

    Of our rows only: a user's file does not decide whose code runs.
    """
    return frozenset(name for row in ours() for name in row.architectures)


@cache
def ours() -> tuple[Row, ...]:
    """Without what users added."""
    found: list[Row] = []
    for path in sorted(Path(__file__).parent.glob("*.toml")):
        found += msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), Family).model
    return tuple(found)


@cache
def _theirs(folder: Path) -> dict[str, Row]:
    return user.rows(folder, date.today())


@cache
def _joined(folder: Path) -> tuple[Row, ...]:
    theirs = _theirs(folder)
    return (*(row for row in ours() if row.id not in theirs), *theirs.values())
