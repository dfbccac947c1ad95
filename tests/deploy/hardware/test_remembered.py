"""The bandwidth of a box is measured once, kept for that box alone, and never costs more than an estimate."""

from __future__ import annotations

import json
import time

import msgspec
import pytest

from deploy import paths
from deploy.hardware import Hardware, bandwidth, remembered
from tests.deploy.boxes import box


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Threads of every measurement that was made. What it finds is no matter here."""
    made: list[int] = []

    def measure(threads: int) -> float | None:
        made.append(threads)
        return 20e9

    monkeypatch.setattr(bandwidth, "measure", measure)
    return made


def rate(hardware: Hardware) -> float | None:
    return hardware.memory.bandwidth_bytes_per_s


def test_it_is_measured_once_and_recalled_without_measuring(calls: list[int]) -> None:
    assert rate(remembered.recalled(box())) is None
    assert rate(remembered.measured(box(cores=3))) == 20e9
    assert rate(remembered.measured(box(cores=3))) == rate(remembered.recalled(box(cores=3))) == 20e9
    assert calls == [3]


def test_another_box_is_measured_again(calls: list[int]) -> None:
    remembered.measured(box(cores=2))
    assert rate(remembered.recalled(box(cores=4))) is None
    remembered.measured(box(cores=4))
    assert calls == [2, 4]


def written(at: float) -> None:
    """As if it had been measured then."""
    path = paths.state_dir() / "bandwidth.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"at": int(at), "bytes_per_s": 1e9}))


@pytest.mark.parametrize("seconds", [remembered.KEPT_S + 60, -3600], ids=["older than a day", "of the future"])
def test_what_is_not_of_the_last_day_is_measured_again_and_kept(calls: list[int], seconds: int) -> None:
    """A busy box gave too little, or the clock was wrong."""
    remembered.measured(box())
    written(time.time() - seconds)
    old = remembered.recalled(box())
    assert rate(old) == 1e9
    assert rate(remembered.measured(old)) == 20e9
    assert rate(remembered.recalled(box())) == 20e9
    assert len(calls) == 2


def test_what_is_of_today_is_not_measured_again(calls: list[int]) -> None:
    remembered.measured(box())
    written(time.time() - remembered.KEPT_S + 3600)
    assert rate(remembered.measured(box())) == 1e9
    assert len(calls) == 1


def test_it_can_be_measured_without_a_trace(calls: list[int]) -> None:
    assert rate(remembered.measured(box(), keep=False)) == 20e9
    assert not paths.state_dir().exists()
    remembered.measured(box())
    written(0)
    before = (paths.state_dir() / "bandwidth.json").read_bytes()
    assert rate(remembered.measured(box(), keep=False)) == 20e9
    assert (paths.state_dir() / "bandwidth.json").read_bytes() == before
    assert len(calls) == 3


def test_what_could_not_be_measured_is_not_tried_at_every_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bandwidth, "measure", lambda threads: None)
    assert rate(remembered.measured(box())) is None
    monkeypatch.setattr(bandwidth, "measure", lambda threads: 1 / 0)
    assert rate(remembered.measured(box())) is None


def test_a_recorded_box_keeps_its_own(calls: list[int]) -> None:
    other = box()
    memory = msgspec.structs.replace(other.memory, bandwidth_bytes_per_s=5e9)
    assert rate(remembered.measured(msgspec.structs.replace(other, memory=memory))) == 5e9
    assert not calls


def test_a_damaged_file_is_measured_over(calls: list[int]) -> None:
    paths.state_dir().mkdir(parents=True)
    (paths.state_dir() / "bandwidth.json").write_text("{")
    assert rate(remembered.recalled(box())) is None
    assert rate(remembered.measured(box())) == 20e9
    assert calls == [4]


def test_a_state_dir_that_cannot_be_written_costs_only_the_time(calls: list[int]) -> None:
    paths.state_dir().parent.mkdir(parents=True)
    paths.state_dir().write_text("in the way")
    assert rate(remembered.measured(box())) == 20e9
    assert len(calls) == 1
