"""What the harness itself costs while it measures: CPU of this process and lateness of its event loop."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from benchmarks.intervals import percentile
from benchmarks.window import Window

TICK_S = 0.01
NS_PER_MS = 1e6


class Sample(NamedTuple):
    """At ``t_ns``: how late this tick was, and the CPU the process had used."""

    t_ns: int
    lag_ns: int
    cpu_ns: int


@contextlib.asynccontextmanager
async def metered() -> AsyncIterator[list[Sample]]:
    """A list that grows by a sample per tick for as long as the block runs."""
    samples: list[Sample] = []
    task = asyncio.create_task(_tick(samples))
    try:
        yield samples
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _tick(samples: list[Sample]) -> None:
    while True:
        before_ns = time.perf_counter_ns()
        await asyncio.sleep(TICK_S)
        now_ns = time.perf_counter_ns()
        lag_ns = max(0, now_ns - before_ns - int(TICK_S * 1e9))
        samples.append(Sample(now_ns, lag_ns, time.process_time_ns()))


def cpu_percent(samples: Sequence[Sample], window: Window) -> float | None:
    """Of one core; None where the window holds fewer than two samples."""
    inside = [sample for sample in samples if window.holds(sample.t_ns)]
    if len(inside) < 2:
        return None
    first, last = inside[0], inside[-1]
    return 100 * (last.cpu_ns - first.cpu_ns) / (last.t_ns - first.t_ns)


def loop_lag_p99_ms(samples: Sequence[Sample], window: Window) -> float | None:
    """None where the window holds no sample."""
    lags = sorted(sample.lag_ns / NS_PER_MS for sample in samples if window.holds(sample.t_ns))
    return percentile(lags, 0.99) if lags else None
