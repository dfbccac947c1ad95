"""What a benchmark gives back to the plan, through the files that a deployment leaves."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from benchmarks import feedback
from benchmarks.results import Cell, Result
from benchmarks.timing import Outcome
from deploy import atomic, paths
from deploy.engine import Command
from deploy.measured import store
from deploy.plan import Plan
from deploy.prepare import Deployment
from tests.benchmarks.streams import cell, record, result, steady_records
from tests.deploy.measured.starts import box, planned, start

SPEED = 10.0
"""Tokens per second of ``steady_records``: one every 100 ms."""


@pytest.fixture(autouse=True)
def _deployed(tmp_path: Path) -> None:
    """A deployment of `chat` whose engine was started twice, and failed to start after that."""
    model = planned(tmp_path, "chat", Command(argv=(), env={}))
    decided = Plan(hardware=box().fingerprint, lock="0" * 64, models=(model,))
    deployed = Deployment(inputs="", project="", host="127.0.0.1", port=1, plan=decided, created=int(time.time()))
    atomic.write(paths.deployment_file(), msgspec.json.encode(deployed))
    tree = model.launch.variant.tree
    for entry in (start(1), start(2), start(3, correction="too long", named=3), start(4, engine_version="2")):
        store.add(msgspec.structs.replace(entry, tree=tree))


def single(**changes: Any) -> Cell:
    return msgspec.structs.replace(cell(steady_records(1, 30)), **changes)


def of_this_box(*cells: Cell, **server: Any) -> Result:
    found = result(*cells)
    server = {"hardware": box(), "engine_version": start().engine_version} | server
    return msgspec.structs.replace(found, server=msgspec.structs.replace(found.server, **server))


def speeds() -> list[float | None]:
    return [entry.measured.tokens_per_s for entry in store.read().entries]


def test_the_speed_of_one_stream_lies_beside_the_newest_start_of_that_engine() -> None:
    assert feedback.keep(of_this_box(single(), cell(steady_records(4, 30), concurrency=4)))
    assert speeds() == [None, pytest.approx(SPEED), None, None]


def test_an_alias_is_the_same_model() -> None:
    assert feedback.keep(of_this_box(single(), model="chat-alias"))


def test_of_replicates_the_middle_one_counts() -> None:
    def paced(step_ms: float) -> Cell:
        begins = [10 * step_ms * turn for turn in range(30)]
        stamps = [tuple(begin + step_ms * number for number in range(1, 11)) for begin in begins]
        return cell([record(chunks[0] - step_ms, chunks[-1], chunks_ms=chunks, tokens=10) for chunks in stamps])

    assert feedback.one_stream(of_this_box(*map(paced, (50.0, 80.0, 100.0)))) == pytest.approx(12.5)


@pytest.mark.parametrize(
    "server",
    [
        {"hardware": None},
        {"lock": None},
        {"lock": "1" * 12},
        {"model": "other"},
        {"engine": "vllm"},
        {"engine_version": "3"},
    ],
)
def test_another_server_leaves_nothing_behind(server: dict[str, Any]) -> None:
    assert not feedback.keep(of_this_box(single(), **server))
    assert speeds() == [None] * 4


def unfit() -> dict[str, Cell]:
    good = single()
    failed = [*steady_records(1, 30), record(30_000, 30_100, outcome=Outcome.HTTP)]
    assert good.window
    return {
        "several clients": cell(steady_records(4, 30), concurrency=4),
        "short": single(window=msgspec.structs.replace(good.window, short=True)),
        "no window": single(window=None),
        "errors": cell(failed),
        "no speed": single(latencies_ms=msgspec.structs.replace(good.latencies_ms, tpot=None)),
    }


@pytest.mark.parametrize("why", ["several clients", "short", "no window", "errors", "no speed"])
def test_a_point_that_is_not_fit_to_be_told_is_not_kept(why: str) -> None:
    assert not feedback.keep(of_this_box(unfit()[why]))
    assert speeds() == [None] * 4


def test_without_a_deployment_there_is_nothing_to_keep_it_with() -> None:
    paths.deployment_file().unlink()
    assert not feedback.keep(of_this_box(single()))


def test_a_store_that_cannot_be_written_is_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    store.file().unlink()
    store.file().mkdir()
    assert not feedback.keep(of_this_box(single()))
    assert "warning: the speed is not kept" in capsys.readouterr().err
