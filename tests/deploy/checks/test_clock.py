"""The clock, against a Hub's and against files."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from deploy.checks import clock
from tests.deploy.checks.contexts import context
from tests.hubserver import hub

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("error_s", "status"),
    [(0, "ok"), (200, "ok"), (-200, "ok"), (600, "warn"), (-600, "warn"), (10**6, "fail"), (-(10**6), "fail")],
)
def test_against_the_hub(error_s: int, status: str) -> None:
    verdict = clock.judge(NOW + error_s, NOW, ())
    assert verdict.status == status
    assert (verdict.hint or "").startswith("sudo timedatectl") is (status != "ok")
    if status != "ok":
        assert "says 2027-01-15 08:00" in verdict.seen
        assert (verdict.hint or "").endswith("sudo date -u -s '2027-01-15 08:00:00'"), "the Hub's time, to be copied"


@pytest.mark.parametrize("year_s", [0.0, 1_600_000_000.0, NOW + 30 * 366 * 86_400])
@pytest.mark.parametrize("error_s", [0, -(10**6)])
def test_a_hub_whose_time_cannot_be_is_no_witness(tmp_path: Path, year_s: float, error_s: int) -> None:
    ours = tmp_path / "ours"
    ours.touch()
    os.utime(ours, (NOW, NOW))
    verdict = clock.judge(NOW + error_s, year_s, (ours,))
    assert "its clock is wrong" in verdict.seen
    assert (verdict.hint or "").startswith("export HF_ENDPOINT=")
    assert verdict.status == ("fail" if error_s else "warn")
    assert ("was written at" in verdict.seen) is bool(error_s), "a file of ours still tells that this one is wrong"


@pytest.mark.parametrize(("error_s", "status"), [(-600, "warn"), (-(10**6), "fail"), (10**9, "ok")])
def test_against_a_file_that_cannot_be_of_the_future(tmp_path: Path, error_s: int, status: str) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for path, written_s in ((old, NOW - 10**6), (new, NOW)):
        path.touch()
        os.utime(path, (written_s, written_s))
    verdict = clock.judge(NOW + error_s, None, (old, new, tmp_path / "missing"))
    assert verdict.status == status
    if status != "ok":
        assert f"`{new}` was written at 2027-01-15 08:00" in verdict.seen


def test_a_hub_that_answers_is_the_witness(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no Hub to compare it with" in clock.clock(context()).seen
    with hub([]) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        assert clock.clock(context()).seen.endswith("as the Hub does")
        monkeypatch.setattr(time, "time", lambda: NOW - 10**8)
        assert clock.clock(context()).status == "fail"
