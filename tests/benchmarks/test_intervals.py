from __future__ import annotations

import pytest

from benchmarks.intervals import needed, percentile, summarise, t_interval


@pytest.mark.parametrize(("q", "n"), [(0.5, 6), (0.95, 72), (0.99, 368), (0.999, 3688)])
def test_how_many_a_percentile_needs(q: float, n: int) -> None:
    assert needed(q) == n


def test_percentiles_lie_between_order_statistics() -> None:
    assert percentile([1, 2, 3, 4], 0.5) == 2.5
    assert percentile([1, 2, 3, 4], 1) == 4
    assert percentile([7], 0.99) == 7


@pytest.mark.parametrize(
    ("n", "unproven"),
    [(5, ("p50", "p95", "p99")), (6, ("p95", "p99")), (71, ("p95", "p99")), (72, ("p99",)), (368, ())],
)
def test_a_small_sample_says_what_it_cannot_claim(n: int, unproven: tuple[str, ...]) -> None:
    summary = summarise([float(value) for value in range(n)])
    assert summary is not None
    assert summary.unproven == unproven
    assert (summary.n, summary.max) == (n, n - 1)


def test_nothing_has_no_summary() -> None:
    assert summarise([]) is None


def test_the_t_interval_of_three_and_five_replicates() -> None:
    three = t_interval([9, 10, 11])
    assert three is not None
    assert three.high - 10 == pytest.approx(4.303 / 3**0.5)
    five = t_interval([8, 9, 10, 11, 12])
    assert five is not None
    assert 10 - five.low == pytest.approx(2.776 * 2.5**0.5 / 5**0.5)


@pytest.mark.parametrize("n", [0, 1, 2, 11])
def test_no_interval_is_pretended(n: int) -> None:
    assert t_interval([1.0] * n) is None
