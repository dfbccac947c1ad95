"""models.toml: what the user wants, as typed values. An unknown key is refused, with the nearest valid one.

Three lines are a whole file; every key is described in docs/config.md (a test compares the two).
"""

from __future__ import annotations

import difflib
import re
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import msgspec

from deploy import decoding
from deploy.decoding import Undecodable
from deploy.errors import ConfigError

FILE = "models.toml"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}")


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """A TOML table of ours: kebab-case keys, unknown keys refused."""


class ModelWish(Table, frozen=True, kw_only=True):
    """One ``[[model]]``: a name clients use and where its weights are defined."""

    name: str
    source: str = "auto"
    aliases: tuple[str, ...] = ()
    context: int | None = None
    slots: int | None = None
    precision: str | None = None
    gguf: str | None = None
    engine: str | None = None
    allow_licence: str | None = None
    allow_remote_code: tuple[str, ...] = ()
    allow_pickle: bool = False


class Server(Table, frozen=True, kw_only=True):
    """``[server]``: where the one base URL listens."""

    host: str = "127.0.0.1"
    port: int = 8000


class EngineWish(Table, frozen=True, kw_only=True):
    """``[engines]``: insist on an engine. ``gpu = "none"`` accepts the CPU on a box with a GPU."""

    gpu: Literal["vllm", "none"] | None = None
    cpu: Literal["llamacpp", "vllm"] | None = None


class Cost(Table, frozen=True, kw_only=True):
    """``[cost]``: what the box costs, for ``ownweights cost``. No default is right, so none is assumed."""

    usd_per_hour: Decimal | None = None
    utilisation: Decimal | None = None


class Comparison(Table, frozen=True, kw_only=True):
    """One ``[[compare]]``: an API price row to set beside ours."""

    provider: str
    model: str


class Config(Table, frozen=True, kw_only=True):
    """The whole of models.toml."""

    model: tuple[ModelWish, ...]
    server: Server = Server()
    engines: EngineWish = EngineWish()
    cost: Cost = Cost()
    compare: tuple[Comparison, ...] = ()


TABLES: dict[str, type[Table]] = {
    "": Config,
    "model": ModelWish,
    "server": Server,
    "engines": EngineWish,
    "cost": Cost,
    "compare": Comparison,
}


def read(path: Path) -> Config:
    """Read and check a models.toml. Raises ConfigError naming the key, the rule and the nearest valid key."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError(
            "no models.toml here", where=str(path), hint=f"printf '[[model]]\\nname = \"chat\"\\n' > {path}"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"models.toml cannot be read: {error}", where=str(path)) from error
    return parse(text, where=str(path))


def parse(text: str, *, where: str = FILE) -> Config:
    """The same, from text."""
    try:
        tables = decoding.tables(text, number=Decimal)
    except Undecodable as error:
        raise ConfigError(str(error), where=f"{where}:{error.line}" if error.line else where) from error
    _refuse_unknown(tables, where)
    if not tables.get("model"):
        raise ConfigError(
            "no [[model]] table: at least one is needed", where=where, hint='add [[model]] with name = "chat"'
        )
    try:
        config = msgspec.convert(tables, Config)
    except msgspec.ValidationError as error:
        raise ConfigError(_plain(str(error)), where=where, hint="docs/config.md lists every key") from error
    _refuse_clashes(config, where)
    return config


def _refuse_unknown(tables: dict[str, Any], where: str) -> None:
    """Before the conversion, because its message cannot name the nearest key."""
    for table, schema in TABLES.items():
        found = tables if not table else tables.get(table, {})
        for entry in found if isinstance(found, list) else [found]:
            known = [field.encode_name for field in msgspec.structs.fields(schema)]
            for key in entry if isinstance(entry, dict) else ():
                if key not in known:
                    raise _unknown_key(key, table, known, where)


def _unknown_key(key: str, table: str, known: list[str], where: str) -> ConfigError:
    place = f"in [{table}]" if table else "at the top level"
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"did you mean `{near[0]}`?" if near else f"valid here: {', '.join(known)}"
    return ConfigError(f"unknown key `{key}` {place}", where=where, hint=hint)


def _plain(message: str) -> str:
    """msgspec's ``… - at `$.model[0].slots` `` in our words."""
    rule, _, path = message.partition(" - at `$")
    return f"`{path.rstrip('`').lstrip('.')}`: {rule.lower()}" if path else rule


def _refuse_clashes(config: Config, where: str) -> None:
    seen: set[str] = set()
    for model in config.model:
        for name in (model.name, *model.aliases):
            if not NAME.fullmatch(name):
                raise ConfigError(f"`{name}` cannot be a model name: letters, digits and . _ : / - only", where=where)
            if name in seen:
                raise ConfigError(f"the name `{name}` is used twice", where=where, hint="names and aliases are unique")
            seen.add(name)
        for key in ("context", "slots"):
            value = getattr(model, key)
            if value is not None and value < 1:
                raise ConfigError(f"`{key}` of model `{model.name}` is {value}, must be at least 1", where=where)
    if not 1 <= config.server.port <= 65535:
        raise ConfigError(f"[server] port is {config.server.port}, must be 1 to 65535", where=where)
