"""API list prices as dated rows. Money is Decimal; a row says where it is from and when it was true."""

from __future__ import annotations

import datetime
import difflib
import tomllib
from decimal import Decimal
from functools import cache
from importlib import resources
from typing import Literal

import msgspec

from deploy.errors import UserError

STALE_DAYS = 90
MTOK = Decimal(1_000_000)


class Tier(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The price of the whole request once its prompt is longer than this."""

    above_tokens: int
    usd_per_mtok: Decimal


class ApiPrice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One row: a model at a provider in one price window."""

    provider: str
    model: str
    weights: Literal["open", "closed"]
    serves_hf_repo: str | None = None
    window: str
    input_usd_per_mtok: Decimal
    output_usd_per_mtok: Decimal
    cached_input_usd_per_mtok: Decimal | None = None
    """None: the row lists no discount for cached input."""
    input_tiers: tuple[Tier, ...] = ()
    output_tiers: tuple[Tier, ...] = ()
    note: str | None = None
    source: str
    as_of: datetime.date

    @property
    def name(self) -> str:
        return f"{self.provider}/{self.model}"

    @property
    def label(self) -> str:
        """The name, and the window where it is not always the same price."""
        return self.name if self.window == "all hours" else f"{self.name} ({self.window})"

    def is_stale(self, today: datetime.date) -> bool:
        return (today - self.as_of).days > STALE_DAYS

    def input_at(self, prompt_tokens: int) -> Decimal:
        """$ per million input tokens of a request with a prompt of this length."""
        return _at(self.input_usd_per_mtok, self.input_tiers, prompt_tokens)

    def output_at(self, prompt_tokens: int) -> Decimal:
        """$ per million output tokens of a request with a prompt of this length."""
        return _at(self.output_usd_per_mtok, self.output_tiers, prompt_tokens)


class _Prices(msgspec.Struct, forbid_unknown_fields=True):
    api: tuple[ApiPrice, ...]


@cache
def rows() -> tuple[ApiPrice, ...]:
    """All rows that are shipped."""
    text = resources.files("benchmarks").joinpath("prices/api.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text, parse_float=Decimal), _Prices).api


def find(name: str) -> tuple[ApiPrice, ...]:
    """Every price window of ``provider/model``. Raises UserError with the nearest names; nothing is guessed."""
    found = tuple(row for row in rows() if row.name == name)
    if found:
        return found
    names = list(dict.fromkeys(row.name for row in rows()))
    folded = {known.casefold(): known for known in names}
    near = [folded[key] for key in difflib.get_close_matches(name.casefold(), folded, n=3, cutoff=0.4)]
    raise UserError(f"no price row for `{name}`", hint=f"one of: {', '.join(near or names)}")


def _at(base: Decimal, tiers: tuple[Tier, ...], prompt_tokens: int) -> Decimal:
    passed = [tier for tier in tiers if prompt_tokens > tier.above_tokens]
    return max(passed, key=lambda tier: tier.above_tokens).usd_per_mtok if passed else base
