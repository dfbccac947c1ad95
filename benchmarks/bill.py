"""A costing as Markdown. Every figure carries its provenance word. Pure."""

from __future__ import annotations

import datetime
from decimal import Decimal

from benchmarks.cost import UTILISATION_MAX
from benchmarks.costing import Comparison, Costing, Range
from benchmarks.markdown import bullets, table

NOTES = (
    "u: the part of the machine's hours in which it is as busy as when measured; the rest of the hours is paid too",
    "the API is billed request by request for the same tokens at each request's own length, nothing of it cached: "
    "the prompts repeat nothing",
    "split (fallback): input, cached and output weigh as the compared API's own prices do; "
    "the parts add up to the machine's dollars (checked, 0.1 %)",
)


def bill(costing: Costing, today: datetime.date) -> str:
    """The whole text, for the terminal and for pasting."""
    parts = [
        f"# What {costing.model} costs on this machine",
        _headline(costing),
        bullets(_basis(costing)),
        _prices(costing),
        _verdicts(costing),
        "Split of the machine's price (fallback), $ per million tokens",
        _splits(costing),
        "Notes",
        bullets((*_notes(costing), *NOTES, *_sources(costing, today))),
    ]
    return "\n\n".join(parts)


def exact(value: Decimal) -> str:
    """A price as it was given, with cents at least."""
    exponent = value.normalize().as_tuple().exponent
    return f"${value:.{max(2, -exponent) if isinstance(exponent, int) else 2}f}"


def usd(value: Decimal) -> str:
    """Four significant digits, never an exponent."""
    if not value:
        return "$0"
    digits = max(2, 3 - value.adjusted())
    return f"${value:.{digits}f}"


def _headline(costing: Costing) -> str:
    """The answer in one sentence; "do not" is a normal one."""
    rows, u = costing.comparisons, f"u = {costing.utilisation.value:.2f}"
    ours = [row.api.label for row in rows if row.cheaper == "this machine"]
    if all(row.never for row in rows):
        most = f"u = {UTILISATION_MAX:.2f}"
        return f"**Do not self-host this for the price: every API compared is cheaper at any u up to {most}.**"
    if len(ours) == len(rows):
        return f"**At {u} self-hosting is cheaper than every API compared.**"
    if not ours:
        return f"**At {u} self-hosting is not shown to be cheaper than any API compared; below is where that flips.**"
    return f"**At {u} self-hosting is cheaper than {', '.join(ours)}, and not shown to be cheaper than the others.**"


def _basis(costing: Costing) -> list[str]:
    point, node, u = costing.point, costing.node, costing.utilisation
    power = "energy included (user)" if node.energy else "energy not given, so none is counted"
    others = ", ".join(str(concurrency) for concurrency in point.considered)
    done = point.tokens_per_s
    how = f"{costing.mode} mode, concurrency {point.concurrency}: the cheapest of the concurrencies {others}"
    return [
        f"machine: {exact(costing.usd_per_hour.value)} per hour (user: {costing.usd_per_hour.basis}), {power}",
        f"speed: {done.input:.1f} input + {done.cached:.1f} cached + {done.output:.1f} output tokens/s "
        f"(measured {costing.measured:%Y-%m-%d}, {how})",
        f"utilisation: u = {u.value:.2f} ({u.provenance}: {u.basis})",
    ]


def _prices(costing: Costing) -> str:
    u = costing.utilisation.value
    header = ("$ per million tokens, input and output together", "u = 1.00", f"u = {u:.2f}", "provenance")
    ours = ("this machine", usd(costing.price_full.value), usd(costing.price_at_utilisation.value), "predicted")
    theirs = [
        (row.api.label, usd(row.api_usd_per_mtok), usd(row.api_usd_per_mtok), f"third-party, {row.api.as_of}")
        for row in costing.comparisons
    ]
    return table(header, [ours, *theirs])


def _verdicts(costing: Costing) -> str:
    header = (f"who is cheaper at u = {costing.utilisation.value:.2f}", "verdict", "same price at (predicted)", "flips")
    return table(header, [_verdict(row) for row in costing.comparisons])


def _verdict(row: Comparison) -> list[str]:
    even = "no u" if row.break_even is None else f"u = {row.break_even:.2f}"
    span = f" [{row.break_even_range.low:.2f}, {_high(row.break_even_range)}]" if row.break_even_range else ""
    return [
        f"against {row.api.label}",
        f"{row.cheaper} is cheaper" if row.cheaper != "unresolved" else "unresolved",
        even + span,
        _flip(row),
    ]


def _flip(row: Comparison) -> str:
    if row.never:
        return f"only above the head-room of {UTILISATION_MAX:.2f}: never at this price"
    return f"self-host above u = {row.break_even:.2f}, use the API below"


def _high(span: Range) -> str:
    return "no u" if span.high is None else f"{span.high:.2f}"


def _splits(costing: Costing) -> str:
    u = costing.utilisation.value
    rows: list[list[str]] = []
    for row in costing.comparisons:
        api, full, used = row.api, row.split_full, row.split_at_utilisation
        cached = api.cached_input_usd_per_mtok
        rows += [
            [
                f"by the ratios of {api.label}, u = 1.00",
                usd(full.input),
                usd(full.cached),
                usd(full.output),
                "predicted",
            ],
            [f"the same, u = {u:.2f}", usd(used.input), usd(used.cached), usd(used.output), "predicted"],
            [
                api.label,
                exact(api.input_usd_per_mtok),
                exact(cached) if cached is not None else "as input",
                exact(api.output_usd_per_mtok),
                f"third-party, {api.as_of}",
            ],
        ]
    return table(("", "input", "cached", "output", "provenance"), rows)


def _notes(costing: Costing) -> list[str]:
    return [
        _interval(costing),
        f"prices are compared, not answers: {costing.model} and the models above differ in what they can do",
    ]


def _interval(costing: Costing) -> str:
    span, count = costing.range_at_utilisation, costing.point.replicates
    if span is None:
        runs = "one replicate" if count == 1 else f"{count} replicates"
        return f"no interval: {runs} (`ownweights bench --replicates 3` gives one)"
    high = "no upper bound" if span.high is None else usd(span.high)
    return (
        f"95 % over {count} replicates at u = {costing.utilisation.value:.2f}: {usd(span.low)} to {high} "
        "per million tokens (the reciprocal of the speed's interval)"
    )


def _sources(costing: Costing, today: datetime.date) -> list[str]:
    lines = []
    for row in costing.comparisons:
        api = row.api
        stale = f"; STALE: {(today - api.as_of).days} days old" if api.is_stale(today) else ""
        note = f"; {api.note}" if api.note else ""
        lines.append(f"{api.label}: {api.source}, as of {api.as_of}{note}{stale}")
    return lines
