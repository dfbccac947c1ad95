"""Wanted against actual: one process per planned model, and the board that shows them.

Engines that a gateway before us left running are adopted where their command is still the planned one, and ended
where it is not: loading weights again is the dearest thing a restart can do.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import msgspec

from deploy.engine import Command, Diagnosis, Engine, Settings
from deploy.errors import EngineError
from deploy.measured import corrects
from deploy.plan import ModelPlan, Plan
from serving import child as children
from serving import identity, records
from serving.board import Board, Entry, Served
from serving.figures import Gauge, Scribe
from serving.process import Job, Links, Pace, Process
from serving.records import Record


class Fleet:
    """All engines of one plan."""

    def __init__(
        self,
        plan: Plan,
        board: Board,
        engines: tuple[Engine, ...],
        *,
        pace: Pace | None = None,
    ) -> None:
        self._plan = plan
        self._board = board
        self._scribe = Scribe()
        self._gauges: dict[str, Gauge] = {}
        self._engines = {(engine.name, engine.device): engine for engine in engines}
        self._processes = {model.model: self._process(model, pace) for model in plan.models}

    async def start(self) -> None:
        """Ends what is not wanted, adopts what is, starts the rest. Returns before they are ready: see the board."""
        self._scribe.start()
        found = records.read_all()
        wanted = {model.model: model for model in self._plan.models}
        for name, record in found.items():
            if name not in wanted or record.planned != wanted[name].command:
                await asyncio.to_thread(_end, record)
        for name, model in wanted.items():
            adopted = None
            if name in found and found[name].planned == model.command:
                adopted = children.adopt(found[name].process)
            if adopted:
                self._serve_context(model, found[name].context_tokens)
            if adopted is None and (stranger := children.listener(model.launch.socket)):
                await asyncio.to_thread(identity.end, stranger, grace_s=Pace.grace_s)
            self._processes[name].start(adopted)

    async def stop(self, *, engines: bool = True) -> None:
        """With ``engines=False`` they go on, for a later gateway to adopt."""
        for gauge in self._gauges.values():
            gauge.look()
        await self._scribe.settle()
        await asyncio.gather(*(process.stop(end=engines) for process in self._processes.values()))
        self._scribe.stop()

    def _process(self, model: ModelPlan, pace: Pace | None) -> Process:
        engine = self._engines.get((model.engine, model.device))
        if engine is None:
            raise EngineError(f"there is no engine `{model.engine}` for the {model.device}", hint="make deploy")
        served = Served(
            name=model.model,
            aliases=model.aliases,
            socket=model.launch.socket,
            revision=model.revision,
            engine=f"{model.engine} {model.engine_version}",
            lock=self._plan.lock[:12],
            context_tokens=model.settings.context_tokens,
            slots=model.settings.slots,
            created=int(time.time()),
            cancels_whole_answers=engine.cancels_whole_answers,
        )
        entry = self._board.put(served)
        job = Job(
            model=model.model,
            command=model.command,
            socket=model.launch.socket,
            log=Path(model.log),
            folder=records.folder(model.model),
            start_timeout_s=model.start_timeout_s,
        )
        return Process(job, entry, self._links(engine, model, entry), pace)

    def _links(self, engine: Engine, model: ModelPlan, entry: Entry) -> Links:
        gauge = self._gauges[model.model] = Gauge(model, self._plan.hardware, engine, self._scribe)
        return Links(
            diagnose=engine.diagnose,
            recommand=lambda diagnosis: self._corrected(engine, model, diagnosis),
            started=lambda pid: self._record(model, entry, pid),
            ready=lambda load_s, log_from: gauge.ready(_settings(model, entry), load_s, log_from),
            looked=gauge.look,
            ended=lambda: records.forget(model.model),
            heard=lambda: entry.heard_s,
        )

    def _record(self, model: ModelPlan, entry: Entry, pid: int) -> None:
        process = identity.of(pid)
        earlier = records.read(model.model)
        at = earlier.at if earlier and earlier.process == process else int(time.time())
        self._gauges[model.model].began(pid, at)
        # Without an identity it is dead already, and its exit on the way to us.
        if process:
            records.write(
                Record(
                    model=model.model,
                    process=process,
                    planned=model.command,
                    context_tokens=entry.served.context_tokens,
                    socket=model.launch.socket,
                    at=at,
                )
            )

    def _corrected(self, engine: Engine, model: ModelPlan, diagnosis: Diagnosis) -> Command | None:
        entry, tokens = self._board.find(model.model), diagnosis.context_tokens
        if tokens is None or entry is None or not corrects(tokens, entry.served.context_tokens):
            return None
        self._gauges[model.model].refused(_settings(model, entry), diagnosis)
        if model.context_fixed:
            return None
        self._serve_context(model, tokens)
        return engine.command(msgspec.structs.replace(model.launch, settings=_settings(model, entry)))

    def _serve_context(self, model: ModelPlan, tokens: int) -> None:
        """What clients are promised is what the engine runs with."""
        if entry := self._board.find(model.model):
            self._board.put(msgspec.structs.replace(entry.served, context_tokens=tokens))


def _settings(model: ModelPlan, entry: Entry) -> Settings:
    """What its engine runs with, or would have."""
    return msgspec.structs.replace(model.launch.settings, context_tokens=entry.served.context_tokens)


def end_all(*, grace_s: float) -> tuple[str, ...]:
    """Ends the engines that a gateway has left behind; returns the models of those that still ran.

    Raises EngineError for one that does not end.
    """
    ended = []
    for name, record in records.read_all().items():
        if record.process.alive:
            ended.append(name)
        if not _end(record, grace_s=grace_s):
            raise EngineError(f"the engine of `{name}` does not end", where=f"pid {record.process.pid}")
    return tuple(ended)


def _end(record: Record, *, grace_s: float = Pace.grace_s) -> bool:
    gone = identity.end(record.process, grace_s=grace_s)
    if gone:
        Path(record.socket).unlink(missing_ok=True)
        records.forget(record.model)
    return gone
