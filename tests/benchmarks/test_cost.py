"""Known answers of the cost model, and what must hold of every price."""

from __future__ import annotations

import datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import prices
from benchmarks.cost import (
    Energy,
    Node,
    Split,
    Throughput,
    api_usd,
    break_even,
    conserves,
    price_per_mtok,
    split_by_ratio,
)
from benchmarks.prices import ApiPrice
from benchmarks.results import Flow

DOLLAR = Node(rent_usd_per_hour=Decimal(1))
POWERED = Node(
    rent_usd_per_hour=Decimal(1),
    other_usd_per_hour=Decimal("0.5"),
    energy=Energy(watts_busy=Decimal(700), watts_idle=Decimal(100), usd_per_kwh=Decimal("0.25")),
)


def row(price_in: str, price_out: str, cached: str | None = None) -> ApiPrice:
    return ApiPrice(
        provider="p",
        model="m",
        weights="open",
        window="all hours",
        input_usd_per_mtok=Decimal(price_in),
        output_usd_per_mtok=Decimal(price_out),
        cached_input_usd_per_mtok=None if cached is None else Decimal(cached),
        source="s",
        as_of=datetime.date(2026, 1, 1),
    )


def flow(prompt: int, output: float, cached: int = 0) -> Flow:
    return Flow(prompt_tokens=prompt, input_tokens=prompt - cached, cached_tokens=cached, output_tokens=output)


def test_a_dollar_an_hour_at_a_thousand_tokens_a_second() -> None:
    full = price_per_mtok(DOLLAR, Decimal(1000), Decimal(1))
    assert full == pytest.approx(Decimal("0.2778"), abs=Decimal("0.00005"))
    used = price_per_mtok(DOLLAR, Decimal(1000), Decimal("0.30"))
    assert used == pytest.approx(Decimal("0.9259"), abs=Decimal("0.00005"))


def test_a_machine_hour_is_rent_other_and_power_by_use() -> None:
    assert DOLLAR.usd_per_hour(Decimal("0.3")) == 1
    assert POWERED.usd_per_hour(Decimal(0)) == Decimal("1.525")
    assert POWERED.usd_per_hour(Decimal(1)) == Decimal("1.675")
    assert POWERED.usd_per_hour(Decimal("0.5")) == Decimal("1.6")


def test_input_and_output_are_parts_and_not_alternatives() -> None:
    """$1.69 an hour, 1000 in and 1000 out a second: two columns of 0.4694 would charge the machine twice."""
    node = Node(rent_usd_per_hour=Decimal("1.69"))
    done = Throughput(input=Decimal(1000), cached=Decimal(0), output=Decimal(1000))
    split = split_by_ratio(node, done, row("1", "1"), Decimal(1), 100)
    assert split.input == split.output == pytest.approx(Decimal("0.4694") / 2, abs=Decimal("0.00005"))
    assert split.attributed_usd_per_hour(done, Decimal(1)) == pytest.approx(Decimal("1.69"))
    twice = Split(input=Decimal("0.4694"), cached=Decimal(0), output=Decimal("0.4694"))
    assert not conserves(twice, node, done, Decimal(1))


def test_the_split_has_the_compared_ratios() -> None:
    done = Throughput(input=Decimal(300), cached=Decimal(50), output=Decimal(100))
    split = split_by_ratio(DOLLAR, done, row("0.5", "2", "0.1"), Decimal("0.3"), 100)
    assert split.output / split.input == pytest.approx(Decimal(4))
    assert split.cached / split.input == pytest.approx(Decimal("0.2"))


def test_a_row_without_a_cache_price_charges_cached_tokens_as_input() -> None:
    done = Throughput(input=Decimal(300), cached=Decimal(50), output=Decimal(100))
    split = split_by_ratio(DOLLAR, done, row("0.5", "2"), Decimal("0.3"), 100)
    assert split.cached == split.input


rates = st.decimals("0.001", "100000", places=3)
usd = st.decimals("0.001", "100", places=3)


@given(
    done=st.builds(Throughput, input=rates, cached=rates, output=rates),
    api=st.builds(row, usd.map(str), usd.map(str), usd.map(str)),
    u=st.decimals("0.01", "1", places=2),
)
def test_the_parts_always_add_up_to_the_machines_dollars(done: Throughput, api: ApiPrice, u: Decimal) -> None:
    assert conserves(split_by_ratio(POWERED, done, api, u, 100), POWERED, done, u)


def test_an_api_bills_each_request_at_its_own_length() -> None:
    """A thousand prompts of 1000 tokens are two dollars; priced as one total they would be four."""
    [gemini] = prices.find("google/gemini-3.1-pro-preview")
    assert api_usd([flow(1000, 0)] * 1000, gemini) == Decimal(2)
    assert api_usd([flow(1_000_000, 0)], gemini) == Decimal(4)


def test_our_cache_hits_are_no_discount_at_the_api() -> None:
    api = row("1", "2", "0.1")
    assert api_usd([flow(1000, 10, cached=400)], api) == api_usd([flow(1000, 10)], api)


def test_a_request_of_which_only_a_part_fell_into_the_window_is_billed_for_that_part() -> None:
    [haiku] = prices.find("anthropic/claude-haiku-5-5")
    part = Flow(prompt_tokens=200_000, input_tokens=0, cached_tokens=0, output_tokens=500_000.0)
    assert api_usd([part], haiku) == Decimal("1.25")


@pytest.mark.parametrize(("bill", "even"), [("2", "0.5"), ("1", "1"), ("0.5", "2")])
def test_break_even_without_power_is_a_ratio(bill: str, even: str) -> None:
    assert break_even(DOLLAR, Decimal(bill)) == Decimal(even)


@given(st.decimals("0.2", "50", places=2))
def test_at_break_even_the_machine_costs_what_the_api_bills(bill: Decimal) -> None:
    even = break_even(POWERED, bill)
    assert even is not None
    assert POWERED.usd_per_hour(even) == pytest.approx(even * bill)


def test_where_power_alone_costs_more_there_is_no_break_even() -> None:
    assert break_even(POWERED, Decimal("0.15")) is None
    assert break_even(POWERED, Decimal("0.10")) is None
    assert break_even(DOLLAR, Decimal(0)) is None
