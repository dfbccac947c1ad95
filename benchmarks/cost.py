"""From a measured operating point to dollars per million tokens, and to the utilisation at which an API costs the same.

Pure; money and rates are Decimal. The formulas are in docs/measuring.md. u is the part of the machine's hours in which
it is as busy as at the measured point.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

import msgspec

from benchmarks.prices import MTOK, ApiPrice
from benchmarks.results import Flow

SECONDS_PER_HOUR = Decimal(3600)
UTILISATION_DEFAULT = Decimal("0.30")
UTILISATION_MAX = Decimal("0.70")
"""Head-room: a machine that answers people is not planned busier than this."""
CONSERVATION = Decimal("0.001")


class Energy(msgspec.Struct, frozen=True, kw_only=True):
    """Watts as a meter at the wall shows them, cooling included where it is paid for."""

    watts_busy: Decimal
    watts_idle: Decimal
    usd_per_kwh: Decimal

    def usd_per_hour(self, utilisation: Decimal) -> Decimal:
        watts = utilisation * self.watts_busy + (1 - utilisation) * self.watts_idle
        return self.usd_per_kwh * watts / 1000


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """What the measured machine costs: rent and what comes with it."""

    rent_usd_per_hour: Decimal
    other_usd_per_hour: Decimal = Decimal(0)
    energy: Energy | None = None

    def usd_per_hour(self, utilisation: Decimal) -> Decimal:
        """Rent runs whether the machine is busy or not."""
        power = self.energy.usd_per_hour(utilisation) if self.energy else Decimal(0)
        return self.rent_usd_per_hour + self.other_usd_per_hour + power


class Throughput(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens per second at u = 1: what an operating point did in its window."""

    input: Decimal
    cached: Decimal
    output: Decimal

    @property
    def total(self) -> Decimal:
        return self.input + self.cached + self.output


class Split(msgspec.Struct, frozen=True, kw_only=True):
    """$ per million tokens of each kind. They add up to the machine's dollars: parts, not alternatives."""

    input: Decimal
    cached: Decimal
    output: Decimal

    def attributed_usd_per_hour(self, throughput: Throughput, utilisation: Decimal) -> Decimal:
        """What these prices charge in an hour at this utilisation."""
        per_second = (
            self.input * throughput.input + self.cached * throughput.cached + self.output * throughput.output
        ) / MTOK
        return per_second * SECONDS_PER_HOUR * utilisation


def throughput(flows: Iterable[Flow], seconds: Decimal) -> Throughput:
    """Of the tokens that fell into windows of this total length."""
    counted = list(flows)
    return Throughput(
        input=sum((Decimal(flow.input_tokens) for flow in counted), Decimal(0)) / seconds,
        cached=sum((Decimal(flow.cached_tokens) for flow in counted), Decimal(0)) / seconds,
        output=sum((Decimal(flow.output_tokens) for flow in counted), Decimal(0)) / seconds,
    )


def price_per_mtok(node: Node, tokens_per_s: Decimal, utilisation: Decimal) -> Decimal:
    """One price for all tokens of the mix."""
    return MTOK * node.usd_per_hour(utilisation) / (SECONDS_PER_HOUR * utilisation * tokens_per_s)


def split_by_ratio(node: Node, done: Throughput, api: ApiPrice, utilisation: Decimal, prompt_tokens: int) -> Split:
    """The fallback split: input, cached and output tokens weigh as the compared API's own prices do.

    ``prompt_tokens``: length at which its tiers are taken. Without a price for cached input it charges them as
    input, and so do its ratios.
    """
    input_price = api.input_at(prompt_tokens)
    cached_price = input_price if api.cached_input_usd_per_mtok is None else api.cached_input_usd_per_mtok
    output_price = api.output_at(prompt_tokens)
    weighed = done.input * input_price + done.cached * cached_price + done.output * output_price
    scale = MTOK * node.usd_per_hour(utilisation) / (SECONDS_PER_HOUR * utilisation * weighed)
    return Split(input=scale * input_price, cached=scale * cached_price, output=scale * output_price)


def conserves(split: Split, node: Node, done: Throughput, utilisation: Decimal) -> bool:
    """Whether the parts add up to the machine's dollars, within 0.1 %."""
    owed = node.usd_per_hour(utilisation)
    return abs(split.attributed_usd_per_hour(done, utilisation) - owed) <= CONSERVATION * owed


def api_usd(flows: Iterable[Flow], api: ApiPrice) -> Decimal:
    """What the API bills for the same tokens, each request at its own length.

    Its caching follows its own rule and not our hits: the prompts of this workload share no prefix beyond a few
    tokens of a template, too few for any cache that is priced, so every prompt token is billed as input.
    """
    bills = (
        (flow.input_tokens + flow.cached_tokens) * api.input_at(flow.prompt_tokens)
        + Decimal(flow.output_tokens) * api.output_at(flow.prompt_tokens)
        for flow in flows
    )
    return sum(bills, Decimal(0)) / MTOK


def break_even(node: Node, api_usd_per_hour: Decimal) -> Decimal | None:
    """The u at which the machine costs what the API bills, ``api_usd_per_hour`` being its bill at u = 1.

    Above 1 where even a full machine costs more. None where no u will do: power alone costs more than the API.
    """
    swing = node.usd_per_hour(Decimal(1)) - node.usd_per_hour(Decimal(0))
    gained = api_usd_per_hour - swing
    return node.usd_per_hour(Decimal(0)) / gained if gained > 0 else None
