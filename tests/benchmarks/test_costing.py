from __future__ import annotations

import datetime
from decimal import Decimal

import msgspec
import pytest

from benchmarks import prices
from benchmarks.bill import bill, exact, usd
from benchmarks.cost import Node
from benchmarks.costing import Costing, Told, cost
from benchmarks.results import Cell, Result
from benchmarks.timing import Outcome
from deploy.errors import UserError
from tests.benchmarks.streams import cell, record, result, steady_records

TODAY = datetime.date(2026, 11, 24)
QWEN, LUNA = prices.find("openrouter/qwen/qwen3-8b") + prices.find("openai/gpt-6-luna")


def priced(measured: Result, rent: str = "0.01", u: str = "0.30") -> Costing:
    utilisation = Told(value=Decimal(u), provenance="user", basis="--utilisation")
    node = Node(rent_usd_per_hour=Decimal(rent))
    return cost(measured, node, utilisation, (QWEN, LUNA), rent_basis="--usd-per-hour")


def at(concurrency: int, replicate: int = 0, *, stretch: float = 1.0) -> Cell:
    """10 output and 100 input tokens per second and place, ``stretch`` times slower."""
    records = [
        record(
            r.t_sched_ns / 1e6 * stretch,
            r.t_done_ns / 1e6 * stretch,
            chunks_ms=tuple(stamp / 1e6 * stretch for stamp in r.chunks_ns),
            tokens=10,
            cached=0,
        )
        for r in steady_records(concurrency, 12)
    ]
    return cell(records, concurrency=concurrency, replicate=replicate)


def test_the_operating_point_is_the_one_with_the_most_tokens() -> None:
    found = priced(result(at(1), at(4), at(2)))
    assert found.point.concurrency == 4
    assert found.point.considered == (1, 2, 4)
    assert found.point.tokens_per_s.total == pytest.approx(Decimal(440), rel=Decimal("1e-9"))


def test_prices_at_full_use_and_at_the_users() -> None:
    found = priced(result(at(1)), rent="0.396")
    assert found.price_full.value == pytest.approx(Decimal(1), rel=Decimal("1e-9"))
    assert found.price_at_utilisation.value == pytest.approx(Decimal(1) / Decimal("0.3"), rel=Decimal("1e-9"))


def test_the_api_is_compared_on_the_same_mix() -> None:
    [qwen, _] = priced(result(at(1))).comparisons
    assert qwen.api_usd_per_mtok == pytest.approx((100 * Decimal("0.035") + 10 * Decimal("0.138")) / 110)


def test_who_is_cheaper_and_where_that_flips() -> None:
    # 110 tokens/s are 0.396 M per hour: at $0.017572 the qwen row's bill of a full hour.
    full_bill = Decimal("0.396") * (100 * Decimal("0.035") + 10 * Decimal("0.138")) / 110
    cheap, dear = priced(result(at(1)), rent=str(full_bill / 5)), priced(result(at(1)), rent=str(full_bill * 2))
    assert cheap.comparisons[0].break_even == pytest.approx(Decimal("0.2"))
    assert (cheap.comparisons[0].cheaper, cheap.comparisons[0].never) == ("this machine", False)
    assert priced(result(at(1)), rent=str(full_bill / 5), u="0.1").comparisons[0].cheaper == "the API"
    assert dear.comparisons[0].break_even == pytest.approx(Decimal(2))
    assert (dear.comparisons[0].cheaper, dear.comparisons[0].never) == ("the API", True)


def test_one_replicate_has_no_interval_and_says_so() -> None:
    found = priced(result(at(1)))
    assert (found.range_at_utilisation, found.comparisons[0].break_even_range) == (None, None)
    assert "no interval: one replicate" in bill(found, TODAY)


def test_three_replicates_have_an_interval_around_the_price() -> None:
    found = priced(result(*(at(1, turn, stretch=slower) for turn, slower in enumerate((1.0, 1.02, 1.04)))))
    span = found.range_at_utilisation
    assert span is not None
    assert span.high is not None
    assert span.low < found.price_at_utilisation.value < span.high
    assert span.high - found.price_at_utilisation.value > found.price_at_utilisation.value - span.low


def test_a_break_even_whose_interval_holds_the_users_use_is_unresolved() -> None:
    cells = [at(1, turn, stretch=slower) for turn, slower in enumerate((1.0, 1.1, 1.2))]
    even = priced(result(*cells), rent="0.005").comparisons[0].break_even
    assert even is not None
    assert priced(result(*cells), rent="0.005", u=f"{even:.3f}").comparisons[0].cheaper == "unresolved"
    assert priced(result(*cells), rent="0.005", u="0.99").comparisons[0].cheaper == "this machine"


def failed() -> Cell:
    return cell([*steady_records(8, 12), record(0, 1, outcome=Outcome.HTTP), record(0, 1, outcome=Outcome.HTTP)])


def uncounted() -> Cell:
    return cell([record(1000 * turn, 1000 * turn + 1000, chunks_ms=(1000 * turn + 300,)) for turn in range(12)])


def test_a_point_that_failed_a_check_is_never_priced() -> None:
    assert not failed().usable
    assert priced(result(at(1), failed())).point.considered == (1,)


@pytest.mark.parametrize("bad", [failed(), uncounted()])
def test_where_no_point_is_left_there_is_no_price(bad: Cell) -> None:
    with pytest.raises(UserError, match="no point of this result can be priced"):
        priced(result(bad))


def test_an_interrupted_run_is_not_priced() -> None:
    broken = msgspec.structs.replace(result(at(1)), valid=False, invalid_because="it was interrupted")
    with pytest.raises(UserError, match="it was interrupted"):
        priced(broken)


@pytest.mark.parametrize(("rent", "u"), [("0", "0.3"), ("-1", "0.3"), ("1", "0"), ("1", "1.01")])
def test_impossible_inputs_are_refused(rent: str, u: str) -> None:
    with pytest.raises(UserError):
        priced(result(at(1)), rent=rent, u=u)


def test_every_line_of_prices_carries_its_provenance() -> None:
    text = bill(priced(result(at(1))), TODAY)
    rows = [line for line in text.splitlines() if line.startswith("|") and " $0" in line]
    assert len(rows) == 9
    assert all("predicted" in line or "third-party, 2026-11-10" in line for line in rows)
    for word in ("measured 2026-11-24", "user: --usd-per-hour", "user: --utilisation"):
        assert word in text


def test_do_not_is_an_answer() -> None:
    assert "**Do not self-host this for the price" in bill(priced(result(at(1)), rent="5"), TODAY)
    assert "self-hosting is cheaper than every API" in bill(priced(result(at(1)), rent="0.0001"), TODAY)


def test_an_old_row_is_marked() -> None:
    assert "STALE" not in bill(priced(result(at(1))), TODAY)
    assert "STALE: 379 days old" in bill(priced(result(at(1))), datetime.date(2027, 11, 24))


def test_the_document_is_json_with_exact_money() -> None:
    document = msgspec.json.decode(msgspec.json.encode(priced(result(at(1)))))
    assert document["node"]["rent_usd_per_hour"] == "0.01"
    assert document["price_full"]["provenance"] == "predicted"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("0", "$0"),
        ("0.27777", "$0.2778"),
        ("0.000123456", "$0.0001235"),
        ("12.3456", "$12.35"),
        ("12345.678", "$12345.68"),
    ],
)
def test_money_has_four_digits_and_no_exponent(value: str, text: str) -> None:
    assert usd(Decimal(value)) == text


@pytest.mark.parametrize(
    ("value", "text"), [("0.1", "$0.10"), ("2", "$2.00"), ("0.0350", "$0.035"), ("1E+1", "$10.00")]
)
def test_a_given_price_is_shown_as_given(value: str, text: str) -> None:
    assert exact(Decimal(value)) == text
