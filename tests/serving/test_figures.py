"""Real processes in place of engines; what is kept of them is read back from the store."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import msgspec
import pytest

from deploy.engine import Command, Diagnosis, Engine, Figures
from deploy.measured import Entry, store
from deploy.plan import ModelPlan
from serving import holdings, records
from serving.board import Board, State
from serving.figures import Scribe, predicted
from serving.fleet import Fleet
from serving.process import Pace
from tests.serving.test_fleet import ENGINES, QUICK, Howler, pid_of, plan, planned, settled
from tests.serving.watched import LIMIT_S, fake, python

GREED = 64 << 20
GREEDY = f"""\
import signal, sys
from serving.engines import fake
held = []
signal.signal(signal.SIGUSR1, lambda *_: held.append(b"x" * {GREED}))
fake.main()
"""
"""The fake engine, which takes so much more at a signal."""
BLIND = replace(QUICK, probe_every_s=99.0)


def kept() -> tuple[Entry, ...]:
    return store.read().entries


def greedy(folder: Path) -> ModelPlan:
    command = Command(argv=(sys.executable, "-c", GREEDY, "--socket", str(folder / "a.sock")), env={})
    return planned(folder, "a", command)


def fleet_of(model: ModelPlan, pace: Pace = QUICK, engines: tuple[Engine, ...] = ENGINES) -> tuple[Fleet, Board]:
    board = Board()
    return Fleet(plan(model), board, engines, pace=pace), board


async def lived(model: ModelPlan, engines: tuple[Engine, ...] = ENGINES) -> Board:
    """One life of a fleet, from its start until all is settled and stopped; what state it had come to."""
    fleet, board = fleet_of(model, engines=engines)
    await fleet.start()
    await settled(board)
    state = next(iter(board)).state
    await fleet.stop()
    next(iter(board)).state = state
    return board


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not condition():
            await asyncio.sleep(0.01)


async def eat(pid: int) -> None:
    """Returns when it has taken more."""
    before = holdings.peak_bytes(pid, "cpu") or 0
    os.kill(pid, signal.SIGUSR1)
    await until(lambda: (holdings.peak_bytes(pid, "cpu") or 0) > before + GREED // 2)


def peak(entry: Entry) -> int:
    assert entry.measured.peak_bytes
    return entry.measured.peak_bytes


def test_a_start_is_kept_beside_what_was_planned(tmp_path: Path) -> None:
    model = planned(tmp_path, "a")
    Path(model.log).write_text("listening, said an earlier start\n")
    asyncio.run(lived(model))
    (entry,) = kept()
    assert (entry.model, entry.variant, entry.tree) == ("a", "gguf/F16", model.launch.variant.tree)
    assert (entry.engine, entry.engine_version, entry.device, entry.hardware) == ("fake", "1", "cpu", "box")
    assert entry.settings == model.settings
    assert entry.predicted == Figures(kv_tokens=8192, weights_bytes=700, peak_bytes=1000)
    assert (entry.measured.kv_tokens, entry.measured.weights_bytes) == (128, 1)
    assert entry.measured.load_s
    assert peak(entry) > 5_000_000
    assert entry.correction is None


def test_without_a_table_nothing_was_predicted(tmp_path: Path) -> None:
    bare = msgspec.structs.replace(planned(tmp_path, "a"), memory=(), kv_tokens=None)
    assert predicted(bare) == Figures()


def test_a_corrected_start_is_a_failure_and_a_start(tmp_path: Path) -> None:
    asyncio.run(lived(planned(tmp_path, "a", python("print('howling'); raise SystemExit(1)"))))
    failed, started = kept()
    assert (failed.correction, failed.measured) == ("howling", Figures(context_tokens=2048))
    assert failed.free_bytes
    assert (failed.settings.context_tokens, started.settings.context_tokens) == (4096, 2048)
    assert started.correction is None
    assert failed.subject == started.subject


def test_what_an_engine_named_is_kept_though_the_users_context_stays(tmp_path: Path) -> None:
    model = planned(tmp_path, "a", python("print('howling'); raise SystemExit(1)"))
    board = asyncio.run(lived(msgspec.structs.replace(model, context_fixed=True)))
    assert [entry.state for entry in board] == [State.FAILED]
    assert [(entry.correction, entry.measured.context_tokens) for entry in kept()] == [("howling", 2048)]


def test_a_start_that_fails_without_a_number_is_not_kept(tmp_path: Path) -> None:
    asyncio.run(lived(planned(tmp_path, "a", python("raise SystemExit(1)"))))
    assert kept() == ()


def test_the_peak_of_a_killed_engine_is_what_was_last_seen(tmp_path: Path) -> None:
    async def scene() -> None:
        fleet, board = fleet_of(greedy(tmp_path))
        await fleet.start()
        await settled(board)
        await until(lambda: len(kept()) == 1)
        before = peak(kept()[0])
        pid = pid_of("a")
        assert pid
        await eat(pid)
        await until(lambda: peak(kept()[0]) > before + GREED // 2)
        os.kill(pid, signal.SIGKILL)
        await until(lambda: len(kept()) == 2)
        first, second = kept()
        assert peak(first) > peak(second) + GREED // 2
        await fleet.stop()

    asyncio.run(scene())


def test_the_peak_is_read_once_more_before_the_end(tmp_path: Path) -> None:
    async def scene() -> int:
        fleet, board = fleet_of(greedy(tmp_path), BLIND)
        await fleet.start()
        await settled(board)
        await until(lambda: len(kept()) == 1)
        before = peak(kept()[0])
        await eat(pid_of("a") or 0)
        assert peak(kept()[0]) == before
        await fleet.stop()
        return before

    before = asyncio.run(scene())
    (entry,) = kept()
    assert peak(entry) > before + GREED // 2


def test_an_adopted_engine_has_one_entry_whose_peak_grows(tmp_path: Path) -> None:
    model = greedy(tmp_path)

    async def left_behind() -> int:
        fleet, board = fleet_of(model, BLIND)
        await fleet.start()
        await settled(board)
        await fleet.stop(engines=False)
        return pid_of("a") or 0

    async def adopted(pid: int) -> None:
        await eat(pid)
        fleet, board = fleet_of(model, BLIND)
        await fleet.start()
        await settled(board)
        assert pid_of("a") == pid
        await fleet.stop()

    pid = asyncio.run(left_behind())
    # As if that had been a while ago.
    records.write(msgspec.structs.replace(records.read_all()["a"], at=5))
    (before,) = (msgspec.structs.replace(entry, at=5) for entry in kept())
    store.file().write_bytes(msgspec.json.encode(before) + b"\n")
    asyncio.run(adopted(pid))
    (after,) = kept()
    assert peak(after) > peak(before) + GREED // 2
    assert msgspec.structs.replace(after, measured=before.measured) == before


@dataclass(frozen=True)
class Mumbler(Howler):
    """An engine whose own words are not understood."""

    def figures(self, log: str) -> Figures:
        raise ValueError(f"{len(log)} bytes of mumble")


def test_figures_that_cannot_be_read_harm_no_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    board = asyncio.run(lived(planned(tmp_path, "a"), (cast("Engine", Mumbler()),)))
    assert [entry.state for entry in board] == [State.READY]
    assert "bytes of mumble" in capsys.readouterr().err
    (entry,) = kept()
    assert peak(entry) > 5_000_000
    assert entry.measured.load_s
    assert entry.measured.kv_tokens is None


@dataclass(frozen=True)
class Doomed(Howler):
    """An engine that names a context of no use."""

    def diagnose(self, log: str) -> Diagnosis | None:
        named = super().diagnose(log)
        return named and msgspec.structs.replace(named, context_tokens=2047)


def test_a_context_of_no_use_is_neither_tried_nor_kept(tmp_path: Path) -> None:
    model = planned(tmp_path, "a", python("print('howling'); raise SystemExit(1)"))
    board = asyncio.run(lived(model, (cast("Engine", Doomed()),)))
    assert [entry.state for entry in board] == [State.FAILED]
    assert kept() == ()


def test_a_store_that_cannot_be_written_harms_no_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store.file().mkdir(parents=True)
    board = asyncio.run(lived(planned(tmp_path, "a")))
    assert [entry.state for entry in board] == [State.READY]
    assert "is not kept" in capsys.readouterr().err


def test_work_that_hangs_holds_up_no_stop() -> None:
    released, done = threading.Event(), threading.Event()

    async def scene() -> None:
        scribe = Scribe()
        scribe.start()
        scribe.hand(lambda: released.wait(LIMIT_S))
        scribe.hand(done.set)
        await scribe.settle(0.01)
        assert not done.is_set()
        released.set()
        await scribe.settle(LIMIT_S)
        assert done.is_set()
        scribe.stop()

    asyncio.run(scene())


def test_nothing_is_waited_for_where_nobody_works() -> None:
    async def scene() -> None:
        async with asyncio.timeout(LIMIT_S / 2):
            await Scribe().settle(LIMIT_S)

    asyncio.run(scene())


def test_a_fleet_that_was_never_started_can_be_stopped(tmp_path: Path) -> None:
    fleet, _ = fleet_of(planned(tmp_path, "a", fake(tmp_path / "a.sock")))
    asyncio.run(fleet.stop())
    assert kept() == ()
