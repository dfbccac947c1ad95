from __future__ import annotations

import pytest

from benchmarks.checks import judge
from benchmarks.results import Check, Strain
from benchmarks.timing import Outcome, Record
from benchmarks.window import steady
from tests.benchmarks.streams import record, steady_records

CALM = Strain(cpu_percent=10, loop_lag_p99_ms=1)


def judged(
    records: list[Record], strain: Strain = CALM, *, template: int | None = 0, exact: int | None = 10
) -> dict[str, Check]:
    window = steady(records, 1, warmups=0)
    checks = judge(records, window, strain, template_tokens_cached=template, exact_tokens=exact)
    return {check.name: check for check in checks}


def verdicts(checks: dict[str, Check]) -> set[str]:
    return {check.verdict for check in checks.values()}


def test_a_clean_point_passes_all() -> None:
    assert verdicts(judged(steady_records(1, 5))) == {"pass"}


@pytest.mark.parametrize(("good", "verdict"), [(98, "fail"), (99, "pass")])
def test_more_than_one_percent_of_errors_voids_the_point(good: int, verdict: str) -> None:
    failed = record(0, 1, outcome=Outcome.HTTP)
    assert judged([*steady_records(1, good), failed])["error rate"].verdict == verdict


@pytest.mark.parametrize(
    ("strain", "name", "verdict"),
    [
        (Strain(cpu_percent=71, loop_lag_p99_ms=1), "client CPU", "fail"),
        (Strain(cpu_percent=70, loop_lag_p99_ms=1), "client CPU", "pass"),
        (Strain(cpu_percent=1, loop_lag_p99_ms=5.1), "loop lag", "fail"),
        (Strain(cpu_percent=1, loop_lag_p99_ms=None), "loop lag", "unknown"),
    ],
)
def test_a_harness_at_its_limit_voids_the_point(strain: Strain, name: str, verdict: str) -> None:
    assert judged(steady_records(1, 5), strain)[name].verdict == verdict


@pytest.mark.parametrize(
    ("cached", "template", "verdict"),
    [(0, 0, "pass"), (24, 24, "pass"), (25, 24, "pass"), (26, 24, "fail"), (90, 24, "fail"), (24, None, "fail")],
)
def test_only_the_template_may_come_from_the_cache(cached: int, template: int | None, verdict: str) -> None:
    assert judged(steady_records(1, 5, cached=cached, prompt=100), template=template)["prefix cache"].verdict == verdict


def test_a_server_that_does_not_tell_its_cache_is_not_passed() -> None:
    assert judged(steady_records(1, 5, cached=None))["prefix cache"].verdict == "unknown"


def test_an_answer_of_another_length_voids_a_capacity_point_only() -> None:
    records = [*steady_records(1, 5), record(5000, 6000, chunks_ms=(5500,), tokens=9, cached=0)]
    assert judged(records)["answer length"].verdict == "fail"
    assert "answer length" not in judged(records, exact=None)


def test_a_point_without_usage_is_unknown_and_not_failed() -> None:
    checks = judged([record(0, 1000, chunks_ms=(500,))])
    assert checks["token counts"].verdict == "unknown"
    assert "fail" not in verdicts(checks)


def test_a_load_without_a_window_fails() -> None:
    assert judged([])["steady window"].verdict == "fail"
    assert judged([])["error rate"].verdict == "fail"
