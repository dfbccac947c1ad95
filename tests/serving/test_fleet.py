from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import msgspec
import pytest

from deploy import paths
from deploy.engine import Command, Diagnosis, Engine, Figures, Launch
from deploy.errors import EngineError
from deploy.plan import ModelPlan, Plan
from serving import identity, records
from serving.board import Board, State
from serving.fleet import Fleet, end_all
from serving.process import Pace
from serving.records import Record
from tests.deploy.measured import starts
from tests.serving.watched import LIMIT_S, fake, python

QUICK = Pace(probe_every_s=0.1, probe_deadline_s=1.0, pause_s=0.01, attempts=2)


@dataclass(frozen=True)
class Howler:
    """All that the fleet asks of an engine."""

    name: str = "fake"
    device: str = "cpu"
    cancels_whole_answers: bool = False

    def diagnose(self, log: str) -> Diagnosis | None:
        if "howling" not in log:
            return None
        return Diagnosis(cause="too long", evidence="howling", hint="context = 2048", context_tokens=2048)

    def figures(self, log: str) -> Figures:
        return Figures(kv_tokens=128, weights_bytes=log.count("listening"))

    def command(self, launch: Launch) -> Command:
        assert launch.settings.context_tokens == 2048
        return fake(Path(launch.socket))


ENGINES = (cast("Engine", Howler()),)


def planned(folder: Path, model: str, command: Command | None = None) -> ModelPlan:
    return starts.planned(folder, model, command or fake(folder / f"{model}.sock"))


def plan(*models: ModelPlan) -> Plan:
    return Plan(hardware="box", lock="0123456789abcdef", models=models)


async def settled(board: Board) -> None:
    """Until every model is ready or has failed."""
    async with asyncio.timeout(LIMIT_S):
        while any(entry.state is State.STARTING for entry in board):
            await asyncio.sleep(0.01)


def pid_of(model: str) -> int | None:
    """None while it is between two lives."""
    record = records.read_all().get(model)
    return record.process.pid if record else None


def test_every_model_is_on_the_board_and_nothing_is_left_after_a_stop(tmp_path: Path) -> None:
    async def scene() -> None:
        board = Board()
        fleet = Fleet(plan(planned(tmp_path, "a"), planned(tmp_path, "b")), board, ENGINES, pace=QUICK)
        assert [entry.state for entry in board] == [State.STARTING, State.STARTING]
        await fleet.start()
        await settled(board)
        assert board.ready
        entry = board.find("b-alias")
        assert entry
        assert (entry.served.name, entry.served.engine, entry.served.lock) == ("b", "fake 1", "0123456789ab")
        assert (entry.served.context_tokens, entry.served.slots) == (4096, 2)
        assert not entry.served.cancels_whole_answers
        running = [record.process for record in records.read_all().values()]
        assert len(running) == 2
        await fleet.stop()
        assert not any(process.alive for process in running)
        assert records.read_all() == {}
        assert [entry.state for entry in board] == [State.STOPPED, State.STOPPED]

    asyncio.run(scene())


def test_a_model_that_fails_leaves_the_others_alone(tmp_path: Path) -> None:
    async def scene() -> None:
        board = Board()
        broken = planned(tmp_path, "broken", python("raise SystemExit(1)"))
        fleet = Fleet(plan(planned(tmp_path, "a"), broken), board, ENGINES, pace=QUICK)
        await fleet.start()
        await settled(board)
        assert [entry.state for entry in board] == [State.READY, State.FAILED]
        await fleet.stop()

    asyncio.run(scene())


def test_a_corrected_context_is_what_the_board_promises(tmp_path: Path) -> None:
    too_long = planned(tmp_path, "a", python("print('howling'); raise SystemExit(1)"))

    async def scene() -> None:
        board = Board()
        fleet = Fleet(plan(too_long), board, ENGINES, pace=QUICK)
        await fleet.start()
        await settled(board)
        assert [(entry.state, entry.served.context_tokens) for entry in board] == [(State.READY, 2048)]
        pid = pid_of("a")
        await fleet.stop(engines=False)

        # The next gateway plans the same, and finds what was corrected.
        board = Board()
        fleet = Fleet(plan(too_long), board, ENGINES, pace=QUICK)
        await fleet.start()
        await settled(board)
        assert [(entry.state, entry.served.context_tokens) for entry in board] == [(State.READY, 2048)]
        assert pid_of("a") == pid
        await fleet.stop()

    asyncio.run(scene())


def test_a_context_that_the_user_set_is_not_corrected(tmp_path: Path) -> None:
    too_long = planned(tmp_path, "a", python("print('howling'); raise SystemExit(1)"))

    async def scene() -> None:
        board = Board()
        fixed = msgspec.structs.replace(too_long, context_fixed=True)
        fleet = Fleet(plan(fixed), board, ENGINES, pace=QUICK)
        await fleet.start()
        await settled(board)
        (entry,) = board
        assert (entry.state, entry.served.context_tokens) == (State.FAILED, 4096)
        assert "context = 2048" in entry.detail
        await fleet.stop()

    asyncio.run(scene())


GATEWAY = """\
import asyncio, sys
from pathlib import Path
import msgspec
from deploy.plan import Plan
from serving.board import Board
from serving.fleet import Fleet
from tests.serving.test_fleet import ENGINES, QUICK, settled

async def main():
    board = Board()
    fleet = Fleet(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Plan), board, ENGINES, pace=QUICK)
    await fleet.start()
    await settled(board)
    print(board.ready, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def orphan(folder: Path, *models: ModelPlan) -> None:
    """Engines of a gateway that was killed with -9."""
    file = folder / "plan.json"
    file.write_bytes(msgspec.json.encode(plan(*models)))
    root = str(Path(__file__).parents[2])
    with subprocess.Popen(
        [sys.executable, "-c", GATEWAY, str(file)], cwd=root, stdout=subprocess.PIPE, text=True
    ) as gateway:
        assert gateway.stdout
        assert gateway.stdout.readline() == "True\n"
        os.kill(gateway.pid, signal.SIGKILL)


def test_engines_of_a_killed_gateway_are_adopted_or_ended(tmp_path: Path) -> None:
    same, other, gone = (planned(tmp_path, name) for name in ("same", "other", "gone"))
    orphan(tmp_path, same, other, gone)
    before = {name: record.process for name, record in records.read_all().items()}
    assert all(process.alive for process in before.values())
    changed = msgspec.structs.replace(other, command=fake(Path(other.launch.socket), "chunks=9"))

    async def scene() -> None:
        board = Board()
        fleet = Fleet(plan(same, changed), board, ENGINES, pace=QUICK)
        await fleet.start()
        await settled(board)
        assert board.ready
        assert pid_of("same") == before["same"].pid
        assert pid_of("other") != before["other"].pid
        assert not before["other"].alive
        assert not before["gone"].alive
        os.kill(before["same"].pid, signal.SIGKILL)
        async with asyncio.timeout(LIMIT_S):
            while pid_of("same") in (None, before["same"].pid) or not board.ready:
                await asyncio.sleep(0.01)
        await fleet.stop()

    asyncio.run(scene())


def test_an_engine_without_a_record_is_ended_before_another_takes_its_socket(tmp_path: Path) -> None:
    model = planned(tmp_path, "a")
    orphan(tmp_path, model)
    before = records.read_all()["a"].process
    records.file("a").write_text("{damaged")

    async def scene() -> None:
        board = Board()
        fleet = Fleet(plan(model), board, ENGINES, pace=QUICK)
        await fleet.start()
        assert not before.alive
        await settled(board)
        assert pid_of("a") != before.pid
        await fleet.stop()

    asyncio.run(scene())


def test_engines_of_a_killed_gateway_can_be_ended_without_another(tmp_path: Path) -> None:
    model = planned(tmp_path, "a")
    orphan(tmp_path, model)
    before = records.read_all()["a"].process
    assert end_all(grace_s=LIMIT_S) == ("a",)
    assert not before.alive
    assert not Path(model.launch.socket).exists()
    assert end_all(grace_s=LIMIT_S) == ()


def test_a_stranger_with_a_recorded_pid_is_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "99"], start_new_session=True) as stranger:
        found = identity.of(stranger.pid)
        assert found
        earlier = msgspec.structs.replace(found, started=found.started - 1)
        model = planned(tmp_path, "a")
        records.write(
            Record(model="a", process=earlier, planned=model.command, context_tokens=4096, socket=model.launch.socket)
        )
        assert end_all(grace_s=LIMIT_S) == ()
        assert found.alive
        assert records.read_all() == {}
        stranger.kill()


def test_a_record_holds_no_one_elses_eyes(tmp_path: Path) -> None:
    orphan(tmp_path, planned(tmp_path, "a"))
    try:
        assert (paths.state_dir() / "engines" / "a.json").stat().st_mode & 0o077 == 0
        assert (paths.state_dir() / "engines" / "a").stat().st_mode & 0o077 == 0
    finally:
        end_all(grace_s=LIMIT_S)


def test_a_plan_with_an_engine_that_is_no_more_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no engine `fake` for the cpu"):
        Fleet(plan(planned(tmp_path, "a")), Board(), ())
