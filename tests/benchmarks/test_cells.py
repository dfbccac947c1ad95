from __future__ import annotations

from decimal import Decimal

import pytest

from benchmarks.cost import throughput
from benchmarks.timing import Outcome
from tests.benchmarks.streams import cell, record, steady_records


def test_a_cell_tells_what_was_sent_and_what_came() -> None:
    made = cell(steady_records(2, 15, cached=20), concurrency=2, warmups=4)
    assert made.window is not None
    assert (made.window.start_s, made.window.seconds, made.window.short) == (2, 13, False)
    assert (made.counts.sent, made.counts.warmup, made.counts.in_window, made.counts.ok) == (30, 4, 26, 30)
    assert made.counts.finish_reasons == {"length": 30}
    assert (made.tokens.prompt, made.tokens.cached, made.tokens.output, made.tokens.source) == (2600, 520, 260, "usage")
    assert made.latencies_ms.ttft is not None
    assert (made.latencies_ms.ttft.n, made.latencies_ms.ttft.p50) == (26, 100)
    assert made.latencies_ms.tpot is not None
    assert made.latencies_ms.tpot.p50 == pytest.approx(100)
    assert made.client.cpu_percent == pytest.approx(10)


def test_failures_are_misses_and_not_latencies() -> None:
    failed = record(5000, 6000, chunks_ms=(5001,), tokens=1, outcome=Outcome.CUT)
    made = cell([*steady_records(1, 5), failed])
    assert made.counts.failed == {"stream cut before [DONE]": 1}
    assert made.counts.first_failure == "stream cut before [DONE]: no detail"
    assert made.latencies_ms.ttft is not None
    assert made.latencies_ms.ttft.n == 5
    assert [check.name for check in made.failed_checks] == ["error rate"]
    assert not made.usable


def test_the_flows_are_the_tokens_of_the_rates() -> None:
    # An odd start, so that requests straddle both ends of the window.
    records = [*steady_records(2, 12, cached=20), record(0, 2350, chunks_ms=(100, 2350), tokens=5, cached=20)]
    made = cell(records, concurrency=3, warmups=0)
    assert made.window is not None
    assert made.rates is not None
    done = throughput(made.flows, Decimal(made.window.seconds))
    assert float(done.input) == pytest.approx(made.rates.input_tokens)
    assert float(done.cached) == pytest.approx(made.rates.cached_tokens)
    assert float(done.output) == pytest.approx(made.rates.output_tokens)


def test_an_uncounted_point_has_latencies_and_no_rates_of_tokens() -> None:
    made = cell([record(1000 * turn, 1000 * turn + 1000, chunks_ms=(1000 * turn + 300,)) for turn in range(5)])
    assert made.latencies_ms.ttft is not None
    assert made.latencies_ms.ttft.p50 == 300
    assert made.rates is not None
    assert made.rates.output_tokens is None
    assert (made.tokens.output, made.tokens.source) == (None, "uncounted")
    assert made.flows == ()


def test_nothing_ended_makes_an_empty_cell_and_no_error() -> None:
    made = cell([])
    assert (made.window, made.rates, made.counts.sent) == (None, None, 0)
    assert not made.usable
