"""How much a sample can say: percentiles with the n they need, and the t-interval over replicates. Pure.

Requests of one run are autocorrelated, so they give percentiles but never
the n of an interval; only independent replicates do.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import msgspec

QUANTILES = (0.5, 0.95, 0.99)
CONFIDENCE_TAIL = 0.025
"""Each side of a two-sided 95 % interval."""

# Student's t at 0.975 for n = 3 … 10 replicates (n - 1 degrees of freedom).
T_975 = {3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """A latency in milliseconds. ``unproven`` lists the percentiles that n is too small to claim."""

    n: int
    mean: float
    p50: float
    p95: float
    p99: float
    max: float
    unproven: tuple[str, ...]


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """Two-sided 95 % over n replicates."""

    low: float
    high: float
    n: int


def summarise(values: Sequence[float]) -> Summary | None:
    """None of an empty sample: there is nothing to say."""
    if not values:
        return None
    ordered = sorted(values)
    return Summary(
        n=len(ordered),
        mean=statistics.fmean(ordered),
        p50=percentile(ordered, 0.5),
        p95=percentile(ordered, 0.95),
        p99=percentile(ordered, 0.99),
        max=ordered[-1],
        unproven=tuple(f"p{q * 100:.0f}" for q in QUANTILES if len(ordered) < needed(q)),
    )


def percentile(ordered: Sequence[float], q: float) -> float:
    """Linear between the two nearest order statistics of an ascending, non-empty sample."""
    place = q * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def needed(q: float) -> int:
    """Smallest n whose extreme order statistics bracket the quantile at 95 %: p50 6, p95 72, p99 368."""
    return math.ceil(math.log(CONFIDENCE_TAIL) / math.log(max(q, 1 - q)))


def t_interval(replicates: Sequence[float]) -> Interval | None:
    """None below three replicates or above ten: no interval is better than a pretended one."""
    n = len(replicates)
    if n not in T_975:
        return None
    half = T_975[n] * statistics.stdev(replicates) / math.sqrt(n)
    mean = statistics.fmean(replicates)
    return Interval(low=mean - half, high=mean + half, n=n)
