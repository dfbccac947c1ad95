from __future__ import annotations

import pytest

from benchmarks.suite import Order


def test_by_default_a_point_is_four_rounds_and_ten_seconds_after_two_of_warm_up() -> None:
    shape = Order().shape(8)
    assert (shape.concurrency, shape.warmups, shape.requests, shape.window_s) == (8, 16, 32, 10)


def test_a_stated_number_of_requests_is_that_number() -> None:
    shape = Order(requests=5).shape(8)
    assert (shape.requests, shape.window_s) == (5, 0)


def test_replicates_are_interleaved_and_shuffled_by_the_seed() -> None:
    order = Order(concurrencies=(1, 2, 4, 8), replicates=3, seed=1)
    cells = order.cells()
    assert cells == order.cells()
    assert [replicate for replicate, _ in cells] == [0] * 4 + [1] * 4 + [2] * 4
    rounds = [tuple(concurrency for turn, concurrency in cells if turn == replicate) for replicate in range(3)]
    assert all(sorted(turn) == [1, 2, 4, 8] for turn in rounds)
    assert len({*rounds, (1, 2, 4, 8)}) > 1


def test_the_forecast_counts_every_request_and_the_least_window() -> None:
    order = Order(concurrencies=(1, 4), replicates=2)
    # Of c = 1: 8 to measure, 2 to warm up, 1 to drain; of c = 4: 16, 8 and 4; twice.
    assert order.forecast_s(5) == 2 * 5 * (11 + 28)
    assert order.forecast_s(0.001) == pytest.approx(2 * (10 + 10), rel=0.01)
