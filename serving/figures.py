"""What engines turn out to need, written down beside what was planned (``deploy.measured``).

In a thread of its own, and never able to fail an engine: what goes wrong here is a warning in the gateway's log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread

import msgspec

from deploy import memory, output
from deploy.engine import Diagnosis, Engine, Figures, Settings
from deploy.measured import DIFFERENCE, Entry, store
from deploy.plan import ModelPlan
from serving import holdings

LOG_BYTES = 4 * 1024 * 1024
"""Of a start: an engine tells its figures before it answers."""
GROWTH = 1.01
"""A peak that is higher by less than this is not worth a write."""
SETTLE_S = 2.0
"""So long a stop waits for what is still to be written."""

Work = Callable[[], object]


class Scribe:
    """The thread: works off what it is handed, in that order."""

    def __init__(self) -> None:
        self._work: SimpleQueue[Work | None] = SimpleQueue()
        self._thread: Thread | None = None

    def start(self) -> None:
        # A daemon: a driver that hangs must not keep the gateway from ending.
        self._thread = Thread(target=self._run, name="figures", daemon=True)
        self._thread.start()

    def hand(self, work: Work) -> None:
        self._work.put(work)

    async def settle(self, limit_s: float = SETTLE_S) -> None:
        """Returns when all that was handed over is done, or after ``limit_s``."""
        if self._thread:
            done = Event()
            self.hand(done.set)
            await asyncio.to_thread(done.wait, limit_s)

    def stop(self) -> None:
        """It ends when it has done the rest."""
        self._work.put(None)

    def _run(self) -> None:
        for work in iter(self._work.get, None):
            try:
                work()
            except Exception as error:  # noqa: BLE001 - the edge of a thread whose failures concern no engine
                output.warn(f"what was measured of an engine is not kept: {error!r}", about="figures")


@dataclass
class Start:
    """One life of an engine. ``at``: Unix seconds; ``peak_bytes`` is what was written down, in the thread alone."""

    pid: int
    at: int
    peak_bytes: int = 0


class Gauge:
    """Measures the engine of one model, life after life."""

    def __init__(self, model: ModelPlan, hardware: str, engine: Engine, scribe: Scribe) -> None:
        self._model = model
        self._hardware = hardware
        self._engine = engine
        self._scribe = scribe
        self._start = Start(0, 0)

    def began(self, pid: int, at: int) -> None:
        """Its engine, from now on; one of a gateway before us was started earlier, and has its entry already."""
        self._start = Start(pid, at)

    def ready(self, settings: Settings, load_s: float, log_from: int) -> None:
        """It has given its first token. What it printed of itself begins at that byte of the log."""
        start = self._start

        def keep() -> None:
            peak = holdings.peak_bytes(start.pid, self._model.device)
            store.add(self._entry(start, settings, Figures(load_s=load_s, peak_bytes=peak)))
            start.peak_bytes = peak or 0

        # Two pieces of work: what was seen is kept, whatever its own words are.
        self._scribe.hand(keep)
        self._scribe.hand(lambda: self._told(start, log_from))

    def look(self) -> None:
        """It runs: see how much memory it has taken by now."""
        start = self._start
        self._scribe.hand(lambda: self._grown(start))

    def refused(self, settings: Settings, diagnosis: Diagnosis) -> None:
        """It did not start with these settings, and has named a context that it would start with."""
        named = Figures(context_tokens=diagnosis.context_tokens)
        entry = self._entry(self._start, settings, named, correction=diagnosis.evidence)

        def keep() -> None:
            free = holdings.free_bytes(self._model.device, settings.devices)
            store.add(msgspec.structs.replace(entry, free_bytes=free))

        self._scribe.hand(keep)

    def _told(self, start: Start, log_from: int) -> None:
        told = self._engine.figures(_read(Path(self._model.log), log_from))
        self._amend(start, lambda seen: msgspec.structs.replace(told, load_s=seen.load_s, peak_bytes=seen.peak_bytes))

    def _grown(self, start: Start) -> None:
        peak = holdings.peak_bytes(start.pid, self._model.device)
        if peak is None or peak < start.peak_bytes * GROWTH:
            return
        self._amend(start, lambda seen: msgspec.structs.replace(seen, peak_bytes=max(seen.peak_bytes or 0, peak)))
        start.peak_bytes = peak

    def _amend(self, start: Start, change: Callable[[Figures], Figures]) -> None:
        own = self._entry(start, self._model.settings, Figures())
        store.amend(lambda entry: (entry.subject, entry.at, entry.correction) == (own.subject, own.at, None), change)

    def _entry(self, start: Start, settings: Settings, measured: Figures, *, correction: str | None = None) -> Entry:
        model = self._model
        return Entry(
            at=start.at,
            model=model.model,
            variant=model.variant,
            tree=model.launch.variant.tree,
            hardware=self._hardware,
            engine=model.engine,
            engine_version=model.engine_version,
            device=model.device,
            settings=settings,
            predicted=predicted(model),
            measured=measured,
            correction=correction,
        )


def predicted(model: ModelPlan) -> Figures:
    """What the plan expected, without what it had learnt from earlier starts: that would hide its own error."""
    terms = tuple(term for term in model.memory if term.name != DIFFERENCE)
    return Figures(
        kv_tokens=model.kv_tokens,
        kv_bytes=model.settings.kv_cache_bytes,
        weights_bytes=next((term.bytes for term in terms if term.name == "weights"), None),
        peak_bytes=memory.total(terms) if terms else None,
    )


def _read(log: Path, start: int) -> str:
    with log.open("rb") as file:
        file.seek(start)
        return file.read(LOG_BYTES).decode(errors="replace")
