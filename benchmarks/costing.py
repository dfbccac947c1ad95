"""A result priced and set beside API rows: the document that ``ownweights cost`` prints. Pure."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from decimal import Decimal
from typing import Literal

import msgspec

from benchmarks.cost import (
    UTILISATION_MAX,
    Node,
    Split,
    Throughput,
    api_usd,
    break_even,
    conserves,
    price_per_mtok,
    split_by_ratio,
    throughput,
)
from benchmarks.intervals import t_interval
from benchmarks.prices import MTOK, ApiPrice
from benchmarks.results import Cell, Flow, Provenance, Result
from deploy.errors import OwnweightsError, UserError

Cheaper = Literal["this machine", "the API", "unresolved"]
FULL = Decimal(1)


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """A value with its provenance word and what it rests on."""

    value: Decimal
    provenance: Provenance
    basis: str


class Range(msgspec.Struct, frozen=True, kw_only=True):
    """95 % over replicates. ``high`` is None where the throughput's interval reaches down to nothing."""

    low: Decimal
    high: Decimal | None


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """The operating point that is priced: measured."""

    concurrency: int
    replicates: int
    seconds: Decimal
    tokens_per_s: Throughput
    considered: tuple[int, ...]
    """Concurrencies with a usable cell; this one has the most tokens per second, hence the lowest price."""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """One API row beside the machine. Prices are predicted: measured tokens at third-party prices."""

    api: ApiPrice
    api_usd_per_mtok: Decimal
    """Of this mix of input and output, request by request: what the machine's price is compared with."""
    break_even: Decimal | None
    break_even_range: Range | None
    cheaper: Cheaper
    """At the user's utilisation."""
    never: bool
    """Break-even lies above the head-room: at this price never."""
    split_full: Split
    split_at_utilisation: Split
    """Fallback split by this row's own price ratios."""


class Costing(msgspec.Struct, frozen=True, kw_only=True):
    """The document. Prices are $ per million tokens of the measured mix."""

    kind: Literal["ownweights-cost"] = "ownweights-cost"
    schema: Literal[1] = 1
    run_id: str
    measured: datetime.datetime
    model: str
    mode: str
    node: Node
    usd_per_hour: Told
    """At the user's utilisation, power included."""
    utilisation: Told
    point: Point
    price_full: Told
    price_at_utilisation: Told
    range_at_utilisation: Range | None
    comparisons: tuple[Comparison, ...]


def cost(
    result: Result,
    node: Node,
    utilisation: Told,
    compare: Sequence[ApiPrice],
    *,
    rent_basis: str,
) -> Costing:
    """Raises UserError where the result cannot be priced."""
    _refuse(result, node, utilisation, rent_basis)
    concurrency, cells = _operating_point(result)
    done = _done(cells)
    u = utilisation.value
    speed = f"measured {done.total:.1f} tokens/s"
    return Costing(
        run_id=result.run_id,
        measured=result.started,
        model=result.server.model,
        mode=result.workload.mode,
        node=node,
        usd_per_hour=Told(value=node.usd_per_hour(u), provenance="user", basis=rent_basis),
        utilisation=utilisation,
        point=Point(
            concurrency=concurrency,
            replicates=len(cells),
            seconds=_seconds(cells),
            tokens_per_s=done,
            considered=tuple(sorted({cell.concurrency for cell in _priceable(result)})),
        ),
        price_full=_predicted(price_per_mtok(node, done.total, FULL), speed),
        price_at_utilisation=_predicted(price_per_mtok(node, done.total, u), speed),
        range_at_utilisation=_price_range(node, cells, u),
        comparisons=tuple(_compared(node, cells, row, u) for row in compare),
    )


def _refuse(result: Result, node: Node, utilisation: Told, rent_basis: str) -> None:
    if not result.valid:
        raise UserError(f"the result is not valid: {result.invalid_because}", where=result.run_id, hint="make bench")
    if not 0 < utilisation.value <= 1:
        raise UserError(f"utilisation is {utilisation.value}, must be above 0 and at most 1", where=utilisation.basis)
    if node.rent_usd_per_hour < 0:
        raise UserError(f"the rent is {node.rent_usd_per_hour}, must be at least 0", where=rent_basis)
    if node.usd_per_hour(FULL) <= 0:
        raise UserError("a machine that costs nothing has no price to compare", hint="--usd-per-hour X")


def _predicted(value: Decimal, basis: str) -> Told:
    return Told(value=value, provenance="predicted", basis=f"{basis}, the user's $ per hour")


def _priceable(result: Result) -> list[Cell]:
    return [
        cell
        for cell in result.cells
        if cell.usable and cell.flows and cell.window and cell.rates and cell.rates.output_tokens is not None
    ]


def _operating_point(result: Result) -> tuple[int, list[Cell]]:
    """The concurrency with the most tokens per second: at a given rent the cheapest."""
    cells = _priceable(result)
    if not cells:
        raise UserError(
            "no point of this result can be priced: each failed a check or is uncounted",
            where=result.run_id,
            hint="make bench",
        )
    by_concurrency = {
        cell.concurrency: [same for same in cells if same.concurrency == cell.concurrency] for cell in cells
    }
    return max(by_concurrency.items(), key=lambda found: _done(found[1]).total)


def _seconds(cells: Sequence[Cell]) -> Decimal:
    return sum((Decimal(cell.window.seconds) for cell in cells if cell.window), Decimal(0))


def _flows(cells: Sequence[Cell]) -> list[Flow]:
    return [flow for cell in cells for flow in cell.flows]


def _done(cells: Sequence[Cell]) -> Throughput:
    return throughput(_flows(cells), _seconds(cells))


def _price_range(node: Node, cells: Sequence[Cell], utilisation: Decimal) -> Range | None:
    """The reciprocal of the throughput's interval, hence not symmetric."""
    interval = t_interval([float(_done([cell]).total) for cell in cells])
    if interval is None:
        return None
    return Range(
        low=price_per_mtok(node, Decimal(interval.high), utilisation),
        high=price_per_mtok(node, Decimal(interval.low), utilisation) if interval.low > 0 else None,
    )


def _bill_per_hour(cells: Sequence[Cell], api: ApiPrice) -> Decimal:
    """What the API would bill in an hour for what the machine does at u = 1."""
    return api_usd(_flows(cells), api) / _seconds(cells) * 3600


def _compared(node: Node, cells: Sequence[Cell], api: ApiPrice, utilisation: Decimal) -> Comparison:
    done = _done(cells)
    bill = _bill_per_hour(cells, api)
    even = break_even(node, bill)
    span = _even_range(node, cells, api)
    return Comparison(
        api=api,
        api_usd_per_mtok=MTOK * bill / (3600 * done.total),
        break_even=even,
        break_even_range=span,
        cheaper=_cheaper(even, span, utilisation),
        never=even is None or even > UTILISATION_MAX,
        split_full=_split(node, cells, api, FULL),
        split_at_utilisation=_split(node, cells, api, utilisation),
    )


def _even_range(node: Node, cells: Sequence[Cell], api: ApiPrice) -> Range | None:
    interval = t_interval([float(_bill_per_hour([cell], api)) for cell in cells])
    low = break_even(node, Decimal(interval.high)) if interval else None
    if interval is None or low is None:
        return None
    return Range(low=low, high=break_even(node, Decimal(interval.low)))


def _cheaper(even: Decimal | None, span: Range | None, utilisation: Decimal) -> Cheaper:
    if even is None:
        return "the API"
    if span and span.low <= utilisation and (span.high is None or utilisation <= span.high):
        return "unresolved"
    return "this machine" if utilisation > even else "the API"


def _split(node: Node, cells: Sequence[Cell], api: ApiPrice, utilisation: Decimal) -> Split:
    done = _done(cells)
    typical = max(flow.prompt_tokens for flow in _flows(cells))
    split = split_by_ratio(node, done, api, utilisation, typical)
    if not conserves(split, node, done, utilisation):
        raise OwnweightsError("the split does not add up to the machine's dollars", where=api.name)
    return split
