from __future__ import annotations

import asyncio
import os
import select
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from deploy.engine import Command, Diagnosis
from serving import child as children
from serving import identity
from serving.board import State
from serving.process import Job, Links, Pace, Process
from tests.serving.watched import LIMIT_S, Watched, fake, python

QUICK = Pace(probe_every_s=0.05, probe_deadline_s=0.4, grace_s=5.0, pause_s=0.01, attempts=3)
ONCE = replace(QUICK, attempts=1)
SAD = Diagnosis(cause="the moon is full", evidence="howling", hint="wait for day")


@dataclass
class Run:
    """A process under test, and what it told."""

    folder: Path
    command: Callable[[Path], Command] = fake
    pace: Pace = QUICK
    links: Links = field(default_factory=Links)
    start_timeout_s: float = LIMIT_S
    pids: list[int] = field(default_factory=list)
    ended: int = 0

    def __post_init__(self) -> None:
        self.socket = self.folder / "e.sock"
        self.log = self.folder / "engine.log"
        self.entry = Watched(self.socket)
        self.process = self.another(self.entry)

    def another(self, entry: Watched) -> Process:
        job = Job(
            model="tiny",
            command=self.command(self.socket),
            socket=str(self.socket),
            log=self.log,
            folder=self.folder / "engine",
            start_timeout_s=self.start_timeout_s,
        )
        links = replace(self.links, started=self.pids.append, ended=self._ended)
        return Process(job, entry, links, self.pace)

    def _ended(self) -> None:
        self.ended += 1


def alive(pid: int) -> bool:
    return identity.of(pid) is not None


def ends(pidfd: int) -> bool:
    """Whether that process ends; the kernel takes a moment to end a helper."""
    try:
        return bool(select.select([pidfd], [], [], LIMIT_S)[0])
    finally:
        os.close(pidfd)


async def until_logged(run: Run, text: str) -> None:
    """What a program has printed is the only sign of how far it is."""
    async with asyncio.timeout(LIMIT_S):
        while not (run.log.exists() and text in run.log.read_text()):
            await asyncio.sleep(0.01)


def test_is_ready_after_a_token_and_gone_after_a_stop(tmp_path: Path) -> None:
    async def scene() -> None:
        run = Run(tmp_path)
        run.process.start()
        await run.entry.reaches(State.READY)
        assert alive(run.pids[0])
        await run.process.stop()
        assert not alive(run.pids[0])
        assert run.entry.history == [State.STARTING, State.READY, State.DRAINING, State.STOPPED]
        assert (len(run.pids), run.ended) == (1, 1)

    asyncio.run(scene())


def test_an_engine_sees_neither_our_environment_nor_lets_others_see_its_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")

    async def scene() -> None:
        run = Run(tmp_path)
        run.process.start()
        await run.entry.reaches(State.READY)
        environment = Path(f"/proc/{run.pids[0]}/environ").read_bytes()
        assert b"PATH=" in environment
        assert b"sk-secret" not in environment
        assert run.socket.stat().st_mode & 0o077 == 0
        assert run.log.stat().st_mode & 0o077 == 0
        assert os.getsid(run.pids[0]) == run.pids[0]
        await run.process.stop()

    asyncio.run(scene())


def test_a_killed_engine_is_started_again(tmp_path: Path) -> None:
    async def scene() -> None:
        run = Run(tmp_path)
        run.process.start()
        await run.entry.reaches(State.READY)
        os.kill(run.pids[0], signal.SIGKILL)
        await run.entry.until(lambda: "SIGKILL" in run.entry.detail)
        assert run.entry.state is State.STARTING
        await run.entry.reaches(State.READY, times=2)
        assert run.entry.detail == ""
        assert len(set(run.pids)) == 2
        await run.process.stop()

    asyncio.run(scene())


def test_a_stopped_engine_is_found_by_the_probe_and_replaced(tmp_path: Path) -> None:
    async def scene() -> None:
        run = Run(tmp_path)
        run.process.start()
        await run.entry.reaches(State.READY)
        os.kill(run.pids[0], signal.SIGSTOP)
        await run.entry.until(lambda: "hangs" in run.entry.detail)
        await run.entry.reaches(State.READY, times=2)
        assert not alive(run.pids[0])
        await run.process.stop()

    asyncio.run(scene())


def test_an_engine_at_work_is_not_taken_for_a_hang(tmp_path: Path) -> None:
    """Its answers stop, but its session spends CPU time; only when no request runs has the patience an end."""

    def busy(socket: Path) -> Command:
        server = fake(socket)
        return Command(argv=("sh", "-c", '"$@" & echo "server $!"; while :; do :; done', "sh", *server.argv), env={})

    silences = 0
    outlasted = asyncio.Event()

    def heard() -> None:
        nonlocal silences
        silences += server_stopped
        if silences * QUICK.probe_deadline_s > 2 * pace.patience_s:
            outlasted.set()

    pace = replace(QUICK, patience_s=0.5)
    server_stopped = False

    async def scene() -> None:
        nonlocal server_stopped
        run = Run(tmp_path, busy, pace=pace, links=Links(heard=heard))
        run.process.start()
        await run.entry.reaches(State.READY)
        server = int(run.log.read_text().split()[1])
        watched = os.pidfd_open(server)
        run.entry.running = 1
        os.kill(server, signal.SIGSTOP)
        server_stopped = True
        await asyncio.wait_for(outlasted.wait(), LIMIT_S)
        assert run.entry.state is State.READY
        run.entry.running = 0
        await run.entry.until(lambda: run.entry.state is not State.READY)
        assert "hangs" in run.entry.detail
        await run.process.stop()
        assert ends(watched)

    asyncio.run(scene())


def test_real_traffic_saves_the_probe(tmp_path: Path) -> None:
    asked = 0
    enough = asyncio.Event()

    def heard() -> float:
        nonlocal asked
        asked += 1
        if asked == 5:
            enough.set()
        return time.monotonic()

    async def scene() -> None:
        run = Run(tmp_path, links=Links(heard=heard))
        run.process.start()
        await run.entry.reaches(State.READY)
        os.kill(run.pids[0], signal.SIGSTOP)
        await asyncio.wait_for(enough.wait(), LIMIT_S)
        assert run.entry.state is State.READY
        await run.process.stop()

    asyncio.run(scene())


def test_deaths_after_a_token_are_no_failed_starts(tmp_path: Path) -> None:
    async def scene() -> None:
        run = Run(tmp_path)
        run.process.start()
        for life in range(1, QUICK.attempts + 2):
            await run.entry.reaches(State.READY, times=life)
            os.kill(run.pids[-1], signal.SIGKILL)
        await run.entry.reaches(State.READY, times=QUICK.attempts + 2)
        await run.process.stop()

    asyncio.run(scene())


def test_an_engine_that_answers_without_a_token_is_never_ready(tmp_path: Path) -> None:
    async def scene() -> None:
        run = Run(tmp_path, lambda socket: fake(socket, "answer=crash"))
        run.process.start()
        await run.entry.reaches(State.FAILED)
        assert State.READY not in run.entry.history
        assert "gives no token: HTTP 500" in run.entry.detail
        assert not any(map(alive, run.pids))

    asyncio.run(scene())


def test_a_crash_loop_ends_in_failed_with_the_last_line(tmp_path: Path) -> None:
    async def scene() -> None:
        run = Run(tmp_path, lambda socket: python("print('first'); print('boom'); raise SystemExit(3)"))
        run.process.start()
        await run.entry.reaches(State.FAILED)
        assert run.entry.detail == "the engine ended with exit code 3 (boom)"
        assert (len(run.pids), run.ended) == (3, 3)
        await run.process.stop()
        assert run.entry.state is State.FAILED

    asyncio.run(scene())


def test_a_cause_that_the_engine_names_is_not_tried_again(tmp_path: Path) -> None:
    links = Links(diagnose=lambda log: SAD if "howling" in log else None)

    async def scene() -> None:
        run = Run(tmp_path, lambda socket: python("print('howling'); raise SystemExit(1)"), links=links)
        run.process.start()
        await run.entry.reaches(State.FAILED)
        assert run.entry.detail == "the moon is full (howling); wait for day"
        assert len(run.pids) == 1

    asyncio.run(scene())


def test_what_an_earlier_start_has_printed_is_not_blamed_on_this_one(tmp_path: Path) -> None:
    links = Links(diagnose=lambda log: SAD if "howling" in log else None)

    async def scene() -> None:
        run = Run(tmp_path, lambda socket: python("print('boom'); raise SystemExit(1)"), links=links)
        run.log.write_text("howling\n")
        run.process.start()
        await run.entry.reaches(State.FAILED)
        assert "boom" in run.entry.detail
        assert run.log.read_text().startswith("howling\n")

    asyncio.run(scene())


@pytest.mark.parametrize("helps", [True, False])
def test_a_correction_is_tried_once(tmp_path: Path, helps: bool) -> None:
    too_long = python("print('room for 384'); raise SystemExit(1)")
    cut = Diagnosis(cause="too long", evidence="room for 384", hint="context = 384", context_tokens=384)
    asked: list[int | None] = []

    def recommand(diagnosis: Diagnosis) -> Command:
        asked.append(diagnosis.context_tokens)
        return fake(tmp_path / "e.sock") if helps else replace_argv(too_long)

    links = Links(diagnose=lambda log: cut if "384" in log else None, recommand=recommand)

    async def scene() -> None:
        run = Run(tmp_path, lambda socket: too_long, links=links)
        run.process.start()
        await run.entry.reaches(State.READY if helps else State.FAILED)
        assert asked == [384]
        assert len(run.pids) == 2
        await run.process.stop()

    asyncio.run(scene())


def replace_argv(command: Command) -> Command:
    return Command(argv=(*command.argv, "again"), env=command.env)


def test_a_start_without_a_token_has_a_deadline(tmp_path: Path) -> None:
    async def scene() -> None:
        run = Run(tmp_path, lambda socket: fake(socket, "hold=true"), start_timeout_s=1.0, pace=ONCE)
        run.process.start()
        await run.entry.reaches(State.FAILED)
        assert "no token within 1 s" in run.entry.detail
        assert not any(map(alive, run.pids))

    asyncio.run(scene())


def test_a_program_that_is_not_there_is_a_failure_like_any_other(tmp_path: Path) -> None:
    async def scene() -> None:
        run = Run(tmp_path, lambda socket: Command(argv=("/nowhere/python",), env={}))
        run.process.start()
        await run.entry.reaches(State.FAILED)
        assert "/nowhere/python" in run.entry.detail

    asyncio.run(scene())


def test_a_start_that_cannot_be_written_down_leaves_nothing_running(tmp_path: Path) -> None:
    pids = []

    def full(pid: int) -> None:
        pids.append(pid)
        raise OSError(28, "No space left on device")

    async def scene() -> None:
        run = Run(tmp_path)
        job = Job(
            model="tiny",
            command=fake(run.socket),
            socket=str(run.socket),
            log=run.log,
            folder=tmp_path,
            start_timeout_s=9,
        )
        Process(job, run.entry, Links(started=full), QUICK).start()
        await run.entry.reaches(State.FAILED)
        assert "No space left" in run.entry.detail
        assert len(pids) == 3
        assert not any(map(alive, pids))

    asyncio.run(scene())


def test_running_requests_are_waited_for_before_the_end(tmp_path: Path) -> None:
    async def scene() -> None:
        run = Run(tmp_path, pace=replace(QUICK, drain_s=LIMIT_S))
        run.process.start()
        await run.entry.reaches(State.READY)
        run.entry.running = 1
        stopping = asyncio.create_task(run.process.stop())
        await run.entry.reaches(State.DRAINING)
        assert alive(run.pids[0])
        run.entry.running = 0
        await asyncio.wait_for(stopping, LIMIT_S)
        assert not alive(run.pids[0])

    asyncio.run(scene())


def test_a_second_stop_does_not_wait_for_the_drain(tmp_path: Path) -> None:
    async def scene() -> None:
        run = Run(tmp_path, pace=replace(QUICK, drain_s=10 * LIMIT_S))
        run.process.start()
        await run.entry.reaches(State.READY)
        run.entry.running = 1
        first = asyncio.create_task(run.process.stop())
        await run.entry.reaches(State.DRAINING)
        await asyncio.wait_for(run.process.stop(), LIMIT_S)
        await first
        assert not alive(run.pids[0])

    asyncio.run(scene())


def test_an_engine_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    deaf = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(99)"
    )

    async def scene() -> None:
        run = Run(tmp_path, lambda socket: python(deaf), pace=replace(QUICK, grace_s=0.2))
        run.process.start()
        await until_logged(run, "deaf")
        await run.process.stop()
        assert not alive(run.pids[0])
        assert run.entry.state is State.STOPPED

    asyncio.run(scene())


def test_its_helpers_end_with_it(tmp_path: Path) -> None:
    family = "import subprocess, time; print(subprocess.Popen(['sleep', '99']).pid, flush=True); time.sleep(99)"

    async def scene() -> None:
        run = Run(tmp_path, lambda socket: python(family), pace=ONCE)
        run.process.start()
        await until_logged(run, "\n")
        helper = os.pidfd_open(int(run.log.read_text()))
        os.kill(run.pids[0], signal.SIGKILL)
        await run.entry.reaches(State.FAILED)
        assert ends(helper)

    asyncio.run(scene())


def test_an_engine_goes_on_without_us_and_is_adopted(tmp_path: Path) -> None:
    async def scene() -> None:
        run = Run(tmp_path)
        run.process.start()
        await run.entry.reaches(State.READY)
        found = identity.of(run.pids[0])
        assert found
        await run.process.stop(end=False)
        assert found.alive
        entry = Watched(run.socket)
        process = run.another(entry)
        process.start(children.adopt(found))
        await entry.reaches(State.READY)
        assert run.pids == [found.pid, found.pid]
        os.kill(found.pid, signal.SIGKILL)
        await entry.reaches(State.READY, times=2)
        assert run.pids[2] != found.pid
        await process.stop()

    asyncio.run(scene())


def test_tells_how_long_a_start_took_and_where_its_log_begins_but_not_of_an_adopted_one(tmp_path: Path) -> None:
    told: list[tuple[float, int]] = []
    looked = asyncio.Event()
    links = Links(ready=lambda load_s, log_from: told.append((load_s, log_from)), looked=looked.set)

    async def scene() -> None:
        run = Run(tmp_path, links=links)
        run.log.write_text("an earlier start\n")
        began = time.monotonic()
        run.process.start()
        await run.entry.reaches(State.READY)
        assert [log_from for _, log_from in told] == [len("an earlier start\n")]
        assert 0 < told[0][0] <= time.monotonic() - began
        await asyncio.wait_for(looked.wait(), LIMIT_S)
        found = identity.of(run.pids[0])
        assert found
        await run.process.stop(end=False)
        looked.clear()
        entry = Watched(run.socket)
        process = run.another(entry)
        process.start(children.adopt(found))
        await entry.reaches(State.READY)
        await asyncio.wait_for(looked.wait(), LIMIT_S)
        assert len(told) == 1
        await process.stop()

    asyncio.run(scene())


def test_an_engine_that_never_answers_is_neither_ready_nor_looked_at(tmp_path: Path) -> None:
    told: list[str] = []
    links = Links(ready=lambda load_s, log_from: told.append("ready"), looked=lambda: told.append("looked"))

    async def scene() -> None:
        run = Run(tmp_path, lambda socket: fake(socket, "answer=crash"), links=links)
        run.process.start()
        await run.entry.reaches(State.FAILED)
        assert told == []

    asyncio.run(scene())
