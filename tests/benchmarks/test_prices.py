from __future__ import annotations

import datetime
from decimal import Decimal

import pytest

from benchmarks import prices
from benchmarks.prices import ApiPrice, Tier
from deploy.errors import UserError


def test_every_row_is_dated_sourced_and_decimal() -> None:
    rows = prices.rows()
    assert len(rows) >= 12
    for row in rows:
        assert row.source
        assert datetime.date(2026, 1, 1) < row.as_of <= datetime.date(2026, 11, 24)
        assert isinstance(row.input_usd_per_mtok, Decimal)
        assert 0 < row.input_usd_per_mtok < row.output_usd_per_mtok
    assert len({row.label for row in rows}) == len(rows)


def test_open_and_closed_models_of_every_family() -> None:
    names = " ".join(row.name for row in prices.rows()).lower()
    for family in ("qwen", "deepseek", "glm", "kimi", "minimax", "claude", "gemini", "gpt"):
        assert family in names
    assert {row.weights for row in prices.rows()} == {"open", "closed"}


def test_a_model_with_windows_gives_each_with_its_hours() -> None:
    off_peak, peak = prices.find("deepseek/deepseek-flash")
    assert (off_peak.window, off_peak.input_usd_per_mtok) == ("off-peak", Decimal("0.15"))
    assert (peak.input_usd_per_mtok, peak.output_usd_per_mtok) == (Decimal("0.3"), Decimal("1.2"))
    assert "UTC" in peak.label


def test_a_name_with_a_slash_in_the_model() -> None:
    [row] = prices.find("openrouter/qwen/qwen3-8b")
    assert (row.input_usd_per_mtok, row.output_usd_per_mtok) == (Decimal("0.035"), Decimal("0.138"))


@pytest.mark.parametrize(
    ("asked", "near"),
    [
        ("openrouter/qwen/qwen3-8B", "openrouter/qwen/qwen3-8b"),
        ("openai/gpt-6-lunar", "openai/gpt-6-luna"),
        ("nobody/nothing-of-the-kind-at-all-here", "deepseek/deepseek-flash"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(asked: str, near: str) -> None:
    with pytest.raises(UserError) as caught:
        prices.find(asked)
    assert near in (caught.value.hint or "")


@pytest.mark.parametrize(("prompt_tokens", "usd"), [(1, "2.0"), (200_000, "2.0"), (200_001, "4.0"), (1_000_000, "4.0")])
def test_the_tier_of_a_request_is_that_of_its_own_length(prompt_tokens: int, usd: str) -> None:
    [row] = prices.find("google/gemini-3.1-pro-preview")
    assert row.input_at(prompt_tokens) == Decimal(usd)
    assert row.output_at(prompt_tokens) == (Decimal(12) if usd == "2.0" else Decimal(18))


def test_of_several_tiers_the_highest_passed_holds() -> None:
    tiers = (Tier(above_tokens=200, usd_per_mtok=Decimal(3)), Tier(above_tokens=100, usd_per_mtok=Decimal(2)))
    row = ApiPrice(
        provider="p",
        model="m",
        weights="open",
        window="all hours",
        input_usd_per_mtok=Decimal(1),
        output_usd_per_mtok=Decimal(1),
        input_tiers=tiers,
        source="s",
        as_of=datetime.date(2026, 1, 1),
    )
    assert [row.input_at(length) for length in (100, 101, 201)] == [1, 2, 3]


@pytest.mark.parametrize(("days", "stale"), [(90, False), (91, True)])
def test_a_row_older_than_ninety_days_is_stale(days: int, stale: bool) -> None:
    row = prices.rows()[0]
    assert row.is_stale(row.as_of + datetime.timedelta(days=days)) is stale
