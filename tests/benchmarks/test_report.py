from __future__ import annotations

import msgspec

from benchmarks.report import report
from benchmarks.timing import Outcome
from tests.benchmarks.streams import cell, record, result, steady_records


def test_one_row_per_point_with_its_figures() -> None:
    text = report(result(cell(steady_records(1, 12)), cell(steady_records(2, 12), concurrency=2)))
    rows = [[part.strip() for part in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows] == ["c", "--:", "1", "2"]
    first = dict(zip(rows[0], rows[2], strict=True))
    assert first["output tok/s"] == "10.0"
    assert first["TTFT p50"] == "100"
    assert first["TTFT p95"] == "100*"
    assert first["tok/s per user"] == "10.0"
    assert (first["n"], first["window"], first["checks"]) == ("12", "12 s", "ok")


def test_the_definitions_and_the_harness_error_stand_below() -> None:
    text = report(result(cell(steady_records(1, 12))))
    for words in ("TTFT: from sending", "claims nothing", "the harness's own error", "no interval: one replicate"):
        assert words in text
    assert "every check passed" in text


def test_what_failed_is_named_with_value_and_limit() -> None:
    failed = record(0, 1, outcome=Outcome.HTTP)
    text = report(result(cell([*steady_records(1, 4), failed])))
    assert "error rate is 0.2, limit 0.01: FAILED" in text
    assert "1 of 5 requests failed, the first by http error" in text
    assert "4 s, short" in text


def test_unknown_is_said_and_an_unfinished_run_warned_of() -> None:
    unfinished = msgspec.structs.replace(result(cell([])), valid=False, invalid_because="it was interrupted")
    text = report(unfinished)
    assert "**Not valid: it was interrupted. Not to be priced or quoted.**" in text
    assert "hardware unknown" in text
    assert "revision unknown" in text
    [row] = [line for line in text.splitlines() if line.startswith("|   1")]
    assert row.count("unknown") == 9
    assert row.split()[-4:] == ["none", "|", "FAILED", "|"]


def test_replicates_give_an_interval_from_three_on() -> None:
    two = result(*(cell(steady_records(1, 12), replicate=turn) for turn in range(2)))
    assert "it needs three replicates" in report(two)
    three = result(*(cell(steady_records(1, 12), replicate=turn) for turn in range(3)))
    assert "c = 1: 10.0 output tok/s over 3 replicates, 95 % [10.0, 10.0]" in report(three)


def test_more_in_flight_than_slots_is_said() -> None:
    measured = result(cell(steady_records(2, 12), concurrency=2))
    narrow = msgspec.structs.replace(measured.server, slots=1)
    assert "above c = 1 the wait for a place is in TTFT" in report(msgspec.structs.replace(measured, server=narrow))
    wide = msgspec.structs.replace(measured.server, slots=2)
    assert "wait for a place" not in report(msgspec.structs.replace(measured, server=wide))
