from __future__ import annotations

import pytest

from benchmarks.timing import Outcome
from benchmarks.window import Window, is_short, rates, steady
from tests.benchmarks.streams import MS, record, steady_records


def span(start_ms: float, end_ms: float) -> Window:
    return Window(start_ns=int(start_ms * MS), end_ns=int(end_ms * MS))


def test_a_hand_over_does_not_end_the_span() -> None:
    assert steady(steady_records(1, 5), 1, warmups=0) == span(0, 5000)
    assert steady(steady_records(4, 5), 4, warmups=0) == span(0, 5000)


def test_the_window_opens_when_the_last_warm_up_has_ended() -> None:
    assert steady(steady_records(2, 6), 2, warmups=4) == span(2000, 6000)


def test_ramp_and_drain_lie_outside() -> None:
    places = [record(500 * place, 4000 + 500 * place) for place in range(3)]
    assert steady(places, 3, warmups=0) == span(1000, 4000)


def test_the_longest_of_several_spans() -> None:
    loaded = [record(0, 1000), record(1500, 4000), record(4200, 5000)]
    assert steady(loaded, 1, warmups=0) == span(1500, 4000)


def test_one_missing_of_twenty_is_still_steady_and_two_are_not() -> None:
    full = [record(0, 1000) for _ in range(18)]
    assert steady([*full, record(0, 1000), record(0, 500)], 20, warmups=0) == span(0, 1000)
    assert steady([*full, record(0, 500), record(0, 500)], 20, warmups=0) == span(0, 500)


def test_a_load_that_never_was_steady_has_no_window() -> None:
    assert steady([record(0, 100), record(200, 300)], 2, warmups=0) is None
    assert steady([], 1, warmups=2) is None


@pytest.mark.parametrize(("seconds", "run_s", "short"), [(9, 20, True), (10, 20, False), (10, 200, True)])
def test_what_is_too_short_to_publish(seconds: int, run_s: float, short: bool) -> None:
    assert is_short(span(0, 1000 * seconds), run_s) is short


def test_throughput_is_tokens_in_the_window_by_its_length() -> None:
    found = rates(steady_records(4, 5, cached=20), span(0, 5000))
    assert found.output_tokens == pytest.approx(40)
    assert found.input_tokens == pytest.approx(4 * 80)
    assert found.cached_tokens == pytest.approx(4 * 20)
    assert found.requests == pytest.approx(4)


def test_a_straddling_request_counts_with_its_part() -> None:
    # Tokens at 100 … 1000 ms; the window takes those at 600 … 1000, and not the prompt, read before it.
    found = rates(steady_records(1, 1), span(550, 1550))
    assert found.output_tokens == pytest.approx(5)
    assert found.input_tokens == 0


def test_failures_add_no_tokens() -> None:
    failed = record(0, 1000, chunks_ms=(500,), tokens=500, outcome=Outcome.CUT)
    assert rates([*steady_records(1, 1), failed], span(0, 1000)).output_tokens == pytest.approx(10)


def test_one_answer_without_usage_makes_the_point_uncounted() -> None:
    found = rates([*steady_records(1, 1), record(0, 1000, chunks_ms=(500,))], span(0, 1000))
    assert (found.output_tokens, found.input_tokens, found.cached_tokens) == (None, None, None)
    assert found.requests == 2
