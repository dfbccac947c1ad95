from __future__ import annotations

import msgspec

from deploy.engine import Figures
from deploy.measured import Known
from deploy.measured.comparison import Comparison, rows
from tests.deploy.measured.starts import start


def test_a_row_holds_both_figures_and_the_error_in_percent_of_the_measured() -> None:
    entry = start(
        7,
        predicted=Figures(kv_tokens=1000, peak_bytes=900),
        kv_tokens=1000,
        peak_bytes=1000,
        load_s=2.5,
        tokens_per_s=40.0,
    )
    (row,) = rows(Known(entries=(entry,)))
    assert (row.at, row.engine, row.context_tokens, row.slots) == (7, "llamacpp 1.0", 2048, 2)
    assert row.kv_tokens == Comparison(predicted=1000, measured=1000, error_percent=0.0)
    assert row.peak_bytes == Comparison(predicted=900, measured=1000, error_percent=-10.0)
    assert (row.load_s, row.tokens_per_s, row.correction) == (2.5, 40.0, None)


def test_there_is_no_error_without_both_figures() -> None:
    one = start(predicted=Figures(peak_bytes=900))
    other = start(peak_bytes=1000, kv_tokens=0, predicted=Figures(kv_tokens=9))
    pairs = [pair for row in rows(Known(entries=(one, other))) for pair in (row.peak_bytes, row.kv_tokens)]
    assert [pair.error_percent for pair in pairs] == [None] * 4


def test_a_failed_start_shows_what_the_engine_named() -> None:
    failed = start(2, correction="too long", named=384)
    newest, oldest = rows(Known(entries=(start(1), failed)))
    assert (newest.correction, newest.corrected_tokens) == ("too long", 384)
    assert (oldest.correction, oldest.corrected_tokens) == (None, None)
    assert msgspec.json.decode(msgspec.json.encode(newest))["corrected_tokens"] == 384
