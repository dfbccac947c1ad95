from __future__ import annotations

import asyncio

import psutil

from benchmarks.calibration import calibrate


def test_the_harness_measures_itself_and_leaves_no_process() -> None:
    before = psutil.Process().children()
    found = asyncio.run(calibrate(3))
    assert (found.concurrency, found.true_ttft_ms, found.true_tpot_ms) == (3, 20, 10)
    assert found.requests >= 10
    # Late is possible on a busy box, early is not: the mock sends nothing before its time.
    assert found.ttft_error_p50_ms > -2
    assert found.ttft_error_max_ms >= found.ttft_error_p50_ms
    assert psutil.Process().children() == before
