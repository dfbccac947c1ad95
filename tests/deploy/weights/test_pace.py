"""How fast weights came: kept where it tells something, and never in the way."""

from __future__ import annotations

import pytest

from deploy import paths
from deploy.weights import pace


def test_the_last_pull_that_was_long_enough_counts() -> None:
    assert pace.read() is None
    pace.note(pace.ENOUGH_BYTES, 2.0)
    pace.note(pace.ENOUGH_BYTES - 1, 0.1)
    found = pace.read()
    assert found is not None
    assert found.bytes_per_s == pace.ENOUGH_BYTES / 2
    pace.note(4 * pace.ENOUGH_BYTES, 1.0)
    faster = pace.read()
    assert faster is not None
    assert faster.bytes_per_s == 4 * pace.ENOUGH_BYTES
    assert faster.at >= found.at


def test_a_clock_that_stood_still_tells_nothing() -> None:
    pace.note(pace.ENOUGH_BYTES, 0.0)
    assert pace.read() is None


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"bytes_per_s": "fast", "at": 1}', '{"bytes_per_s": 0, "at": 1}', '{"bytes_per_s": -5, "at": 1}'],
)
def test_what_is_damaged_is_as_if_it_were_not_there(text: str) -> None:
    pace.note(pace.ENOUGH_BYTES, 2.0)
    (paths.state_dir() / "pace.json").write_text(text)
    assert pace.read() is None


def test_a_state_dir_that_cannot_be_written_costs_the_estimate_only() -> None:
    paths.state_dir().parent.mkdir(parents=True)
    paths.state_dir().write_text("a file where the folder should be")
    pace.note(pace.ENOUGH_BYTES, 2.0)
    assert pace.read() is None
