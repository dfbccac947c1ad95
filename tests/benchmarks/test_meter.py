from __future__ import annotations

import asyncio
import time

import pytest

from benchmarks.meter import Sample, cpu_percent, loop_lag_p99_ms, metered
from benchmarks.window import Window
from tests.benchmarks.streams import MS, calm

WINDOW = Window(start_ns=0, end_ns=1000 * MS)


def test_cpu_is_the_process_time_inside_the_window() -> None:
    assert cpu_percent(calm(2), WINDOW) == pytest.approx(10)


def test_lag_outside_the_window_does_not_count() -> None:
    late = Sample(1500 * MS, 400 * MS, 0)
    assert loop_lag_p99_ms([*calm(2), late], WINDOW) == 0
    assert loop_lag_p99_ms([Sample(500 * MS, 7 * MS, 0)], WINDOW) == 7


def test_without_samples_nothing_is_known() -> None:
    assert cpu_percent([], WINDOW) is None
    assert loop_lag_p99_ms([], WINDOW) is None


def test_a_loop_that_is_held_up_is_seen() -> None:
    async def held_up() -> list[Sample]:
        async with metered() as samples:
            while not samples:
                await asyncio.sleep(0.001)
            time.sleep(0.06)
            seen = len(samples)
            while len(samples) == seen:
                await asyncio.sleep(0.001)
            return samples

    assert max(sample.lag_ns for sample in asyncio.run(held_up())) >= 40 * MS
