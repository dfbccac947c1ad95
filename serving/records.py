"""What a gateway writes down about the engines it starts, so that the next one, or `down`, finds them again."""

from __future__ import annotations

from pathlib import Path

import msgspec

from deploy import atomic, paths
from deploy.engine import Command
from deploy.plan import slug
from serving.identity import Identity


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One running engine."""

    model: str
    process: Identity
    planned: Command
    """What the plan said. What runs may be this with another context."""
    context_tokens: int
    """What it runs with."""
    socket: str
    at: int = 0
    """Unix seconds of its start, as its measurements have it."""


def folder(model: str) -> Path:
    """What the engine may write: its working folder and HOME."""
    return paths.state_dir() / "engines" / slug(model)


def file(model: str) -> Path:
    return paths.state_dir() / "engines" / f"{slug(model)}.json"


def write(record: Record) -> None:
    atomic.write(file(record.model), msgspec.json.encode(record), mode=0o600)


def forget(model: str) -> None:
    file(model).unlink(missing_ok=True)


def read(model: str) -> Record | None:
    """None where there is none, or where it cannot be read."""
    return _read(file(model))


def read_all() -> dict[str, Record]:
    """Model → record. One that cannot be read is left out: the engine is then found by its socket."""
    found = map(_read, sorted((paths.state_dir() / "engines").glob("*.json")))
    return {record.model: record for record in found if record}


def _read(path: Path) -> Record | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Record)
    except (OSError, msgspec.MsgspecError):
        return None
