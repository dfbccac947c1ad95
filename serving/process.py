"""One engine process, kept alive: stopped → starting → ready → draining → stopped, or failed.

One task per process is the only writer of its state. Ready means that it gave a token. One that exits, or gives no
token any more, is started again after a pause; one that cannot start fails, with the reason, and touches no other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from deploy.engine import Command, Diagnosis
from serving import child as children
from serving import probe
from serving.board import Entry, State
from serving.child import Child
from serving.probe import Outcome

LOG_TAIL_BYTES = 128 * 1024
BUSY_SHARE = 0.05
"""Of one core. An idle or stopped engine spends next to nothing, one at work on a prompt a whole core or more."""
POLL_SHARE = 0.01
"""Of the time a start has taken so far: waiting for readiness adds at most so much to it."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How long things may take, in seconds."""

    probe_every_s: float = 10.0
    probe_deadline_s: float = 10.0
    patience_s: float = 120.0
    """For an engine that spends CPU time, yet answers no probe, while no request of ours runs."""
    drain_s: float = 2.0
    """For requests that still run. The gateway has drained before it stops its engines."""
    grace_s: float = 3.0
    """Between SIGTERM and SIGKILL; engines were seen to end within 0.5 s."""
    pause_s: float = 0.5
    """Before the second start; doubled for each further one."""
    pause_cap_s: float = 30.0
    stable_s: float = 60.0
    """One that was ready for so long is started again without a longer pause."""
    attempts: int = 5
    """Starts in a row that did not come to a token."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to run, and where its traces go."""

    model: str
    command: Command
    socket: str
    log: Path
    folder: Path
    start_timeout_s: float


@dataclass(frozen=True, kw_only=True)
class Links:
    """What a process asks of others and tells them."""

    diagnose: Callable[[str], Diagnosis | None] = lambda log: None
    """The cause, from the tail of its log."""
    recommand: Callable[[Diagnosis], Command | None] = lambda diagnosis: None
    """The command, corrected as the diagnosis says."""
    started: Callable[[int], None] = lambda pid: None
    ready: Callable[[float, int], None] = lambda load_s, log_from: None
    """Of one that it started: seconds to its first token, and the byte of the log at which its output begins."""
    looked: Callable[[], None] = lambda: None
    """It is ready and goes on running; told with each look at it."""
    ended: Callable[[], None] = lambda: None
    heard: Callable[[], float | None] = lambda: None
    """Monotonic time of the last byte of a real answer; None where none came yet."""


class Problem(NamedTuple):
    """Why a life of the engine is over."""

    text: str
    ready_s: float = 0.0
    """How long it had been ready."""
    diagnosis: Diagnosis | None = None


class Process:
    """Shows its state in ``entry``, which the gateway reads."""

    def __init__(self, job: Job, entry: Entry, links: Links, pace: Pace | None = None) -> None:
        self._job = job
        self._entry = entry
        self._links = links
        self._pace = pace or Pace()
        self._command = job.command
        self._log_from = 0
        self._end_engine = True
        self._task: asyncio.Task[None] | None = None

    def start(self, adopted: Child | None = None) -> None:
        """Begin to keep it alive, with the engine that runs already where there is one."""
        self._task = asyncio.create_task(self._run(adopted))

    async def stop(self, *, end: bool = True) -> None:
        """Drain, end the engine, return when it is gone. A second call does not wait for the drain.

        With ``end=False`` the engine goes on, for a later gateway to adopt.
        """
        if self._task:
            self._end_engine = end
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _run(self, adopted: Child | None) -> None:
        try:
            await self._keep(adopted)
        except asyncio.CancelledError:
            if self._end_engine:
                self._show(State.STOPPED)
            raise
        except Exception as error:
            # Shown, because a model that stays in `starting` for ever tells nobody anything.
            self._show(State.FAILED, f"a bug in ownweights: {error!r}")
            raise

    async def _keep(self, child: Child | None) -> None:
        failed = unstable = 0
        was_ready = False
        while True:
            self._show(State.STARTING)
            problem = await self._live(child)
            child = None
            was_ready = was_ready or problem.ready_s > 0
            failed = 0 if problem.ready_s > 0 else failed + 1
            unstable = 0 if problem.ready_s >= self._pace.stable_s else unstable + 1
            if self._correct(problem):
                continue
            # What the engine itself named at its very first start will not go away by itself.
            if failed >= self._pace.attempts or (problem.diagnosis and not was_ready):
                self._show(State.FAILED, problem.text)
                return
            pause_s = min(self._pace.pause_s * 2 ** max(0, unstable - 1), self._pace.pause_cap_s)
            self._show(State.STARTING, f"{problem.text}; next start in {pause_s:g} s")
            await asyncio.sleep(pause_s)

    async def _live(self, adopted: Child | None) -> Problem:
        """One life of the engine, from its start until it is gone."""
        ready_s = 0.0
        born = time.monotonic()
        try:
            child = adopted or self._spawn()
        except OSError as error:
            return Problem(f"the engine cannot be started: {error}")
        try:
            self._links.started(child.pid)
            why = await self._until_ready(child)
            if why is None:
                self._show(State.READY)
                began = time.monotonic()
                if adopted is None:
                    self._links.ready(began - born, self._log_from)
                why = await self._watch(child)
                ready_s = time.monotonic() - began
                self._show(State.STARTING, why)
        except OSError as error:
            why = f"the engine cannot be written down: {error}"
        except asyncio.CancelledError:
            await self._leave(child)
            raise
        finally:
            await child.end(grace_s=0)
        self._links.ended()
        return self._problem(why, ready_s)

    def _spawn(self) -> Child:
        # Of a predecessor that was killed: most engines refuse to bind while it is there.
        Path(self._job.socket).unlink(missing_ok=True)
        self._log_from = children.open_log(self._job.log)
        return children.spawn(self._command, log=self._job.log, folder=self._job.folder)

    async def _until_ready(self, child: Child) -> str | None:
        """None when it gave a token, else why it will not."""
        began = time.monotonic()
        pause_s = 0.005
        while not await child.exits_within(pause_s):
            spent_s = time.monotonic() - began
            left_s = self._job.start_timeout_s - spent_s
            if left_s <= 0:
                return f"the engine gave no token within {self._job.start_timeout_s:.0f} s"
            verdict = await probe.one_token(self._job.socket, self._job.model, deadline_s=left_s)
            if verdict.outcome is Outcome.TOKEN:
                return None
            if verdict.outcome is Outcome.BROKEN and not await child.exits_within(self._pace.pause_s):
                return f"the engine started but gives no token: {verdict.detail}"
            pause_s = max(pause_s, spent_s * POLL_SHARE)
        return child.fate()

    async def _watch(self, child: Child) -> str:
        """Returns when it is gone or must go, with the reason."""
        while not await child.exits_within(self._pace.probe_every_s):
            self._links.looked()
            if self._heard_since(time.monotonic() - self._pace.probe_every_s):
                continue
            why = await self._silence(child)
            if why is not None and not await child.exits_within(self._pace.pause_s):
                return why
        return child.fate()

    async def _silence(self, child: Child) -> str | None:
        """None while it answers; else what is wrong.

        A probe that waits behind long prompts is no hang: the engine spends CPU time, and the requests that it works
        on run. Should it only spin, then the gateway gives those up one by one, and the patience begins.
        """
        patient_since = time.monotonic()
        cpu_s = await asyncio.to_thread(child.cpu_s)
        while True:
            began = time.monotonic()
            verdict = await probe.one_token(self._job.socket, self._job.model, deadline_s=self._pace.probe_deadline_s)
            if verdict.outcome in (Outcome.TOKEN, Outcome.UNTRIED) or self._heard_since(began):
                return None
            if verdict.outcome is not Outcome.SILENT:
                return f"the engine gives no token any more: {verdict.detail}"
            before_s, cpu_s = cpu_s, await asyncio.to_thread(child.cpu_s)
            if self._entry.running:
                patient_since = time.monotonic()
            busy = cpu_s - before_s > BUSY_SHARE * self._pace.probe_deadline_s
            if not busy or time.monotonic() - patient_since > self._pace.patience_s:
                return f"the engine hangs: {verdict.detail}"

    def _heard_since(self, moment: float) -> bool:
        """Real traffic proves more than any probe."""
        heard = self._links.heard()
        return heard is not None and heard > moment

    async def _leave(self, child: Child) -> None:
        if not self._end_engine:
            child.release()
            return
        self._show(State.DRAINING)
        try:
            until = time.monotonic() + self._pace.drain_s
            while self._entry.running and time.monotonic() < until:
                await asyncio.sleep(0.02)
        finally:
            await child.end(grace_s=self._pace.grace_s)
            self._links.ended()

    def _problem(self, why: str, ready_s: float) -> Problem:
        log = ""
        with suppress(OSError), self._job.log.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(self._log_from, size - LOG_TAIL_BYTES))
            log = file.read().decode(errors="replace")
        diagnosis = self._links.diagnose(log)
        if diagnosis:
            return Problem(f"{diagnosis.cause} ({diagnosis.evidence}); {diagnosis.hint}", ready_s, diagnosis)
        last = next((line.strip() for line in reversed(log.splitlines()) if line.strip()), "it printed nothing")
        return Problem(f"{why} ({last[:300]})", ready_s)

    def _correct(self, problem: Problem) -> bool:
        """Take over the correction that the engine named; once, or a wrong one would repeat for ever."""
        if problem.diagnosis is None or problem.diagnosis.context_tokens is None or self._command != self._job.command:
            return False
        command = self._links.recommand(problem.diagnosis)
        if command is None:
            return False
        self._command = command
        return True

    def _show(self, state: State, detail: str = "") -> None:
        self._entry.state = state
        self._entry.detail = detail
