"""One run: probe the endpoint, calibrate the harness, then measure cell after cell.

Replicates are interleaved and the order within each is shuffled by the seed, so that a box that warms up or a
neighbour that wakes up does not fall on one concurrency alone. Every cell has prompts of its own.
"""

from __future__ import annotations

import datetime
import random
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from benchmarks.calibration import calibrate
from benchmarks.cells import cell_of
from benchmarks.client import Client, Endpoint, connect
from benchmarks.load import Ask, ClosedLoop, Shape
from benchmarks.meter import metered
from benchmarks.probe import body, choose_model, describe, mode_of, probe
from benchmarks.results import PROVENANCE, Cell, Probe, Result
from benchmarks.timing import Record
from benchmarks.window import LEAST_WINDOW_S
from benchmarks.workload import Workload
from deploy import __version__
from deploy.hardware import Hardware

RAMP_LIMIT_S = 5.0
BEAT_S = 10.0
WARMUPS_PER_PLACE = 2
Say = Callable[[str], None]


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to measure. Token counts are per request, ``requests`` per cell."""

    model: str | None = None
    concurrencies: tuple[int, ...] = (1, 2, 4, 8)
    prompt_tokens: int = 200
    output_tokens: int = 128
    requests: int | None = None
    """None: four per place and at least eight, and for as long as the window needs to be ten seconds."""
    replicates: int = 1
    seed: int = 0

    def shape(self, concurrency: int) -> Shape:
        return Shape(
            concurrency=concurrency,
            warmups=WARMUPS_PER_PLACE * concurrency,
            requests=self.requests or max(8, 4 * concurrency),
            window_s=LEAST_WINDOW_S if self.requests is None else 0,
        )

    def forecast_s(self, request_s: float) -> float:
        """How long it takes where answering several at once gains nothing."""
        shapes = [self.shape(concurrency) for concurrency in self.concurrencies] * self.replicates
        return sum(
            max(shape.window_s, request_s * shape.requests) + request_s * (shape.warmups + shape.concurrency)
            for shape in shapes
        )

    def cells(self) -> list[tuple[int, int]]:
        """(replicate, concurrency) in the order to run."""
        shuffle = random.Random(self.seed).shuffle
        cells = []
        for replicate in range(self.replicates):
            order = list(self.concurrencies)
            shuffle(order)
            cells += [(replicate, concurrency) for concurrency in order]
        return cells


@dataclass(frozen=True)
class Target:
    """A model at an endpoint and the work it is asked to do."""

    client: Client
    model: str
    workload: Workload
    run_id: str

    def asker(self, cell: str) -> Ask:
        """The prompts of one cell."""
        ignore_eos = self.workload.mode == "capacity"

        async def ask(index: int, t_sched_ns: int) -> Record:
            prompt = self.workload.prompt(self.run_id, cell, index)
            asked = body(self.model, prompt, self.workload.output_tokens, ignore_eos=ignore_eos)
            return await self.client.chat(asked, t_sched_ns=t_sched_ns)

        return ask


class Suite:
    """A run in progress. ``result`` can be asked at any time: an unfinished run gives an invalid result."""

    def __init__(self, order: Order, endpoint: Endpoint, *, command: tuple[str, ...], say: Say) -> None:
        self._order, self._endpoint, self._command, self._say = order, endpoint, command, say
        self._run_id = secrets.token_hex(16)
        self._started = datetime.datetime.now(datetime.UTC)
        self._cells: list[Cell] = []
        self._draft: Result | None = None

    async def run(self, hardware: Hardware | None) -> None:
        """``hardware``: of the server, where it is known. Raises UserError or EngineError before the load; during
        it failures go into the cells.
        """
        workload = Workload(
            seed=self._order.seed,
            prompt_tokens=self._order.prompt_tokens,
            output_tokens=self._order.output_tokens,
            mode="behaviour",
        )
        async with connect(self._endpoint) as client:
            entry = await choose_model(client, self._order.model, self._endpoint.base_url)
            found = await probe(client, entry.id, workload, self._run_id)
            workload = msgspec.structs.replace(workload, mode=mode_of(found))
            server = describe(entry, client.receipts, self._endpoint.base_url, hardware)
            forecast_s = self._order.forecast_s(found.request_ms / 1000)
            self._say(f"measuring {entry.id} at {server.url}, {workload.mode} mode, {_at_most(forecast_s)}")
            calibration = await calibrate(max(self._order.concurrencies))
            self._draft = Result(
                run_id=self._run_id,
                started=self._started,
                harness=__version__,
                command=self._command,
                valid=False,
                invalid_because="it was interrupted",
                server=server,
                workload=workload,
                workload_sha256=workload.sha256,
                probe=found,
                calibration=calibration,
                cells=(),
                provenance=PROVENANCE,
            )
            await self._measure(Target(client, entry.id, workload, self._run_id), found)
        self._draft = msgspec.structs.replace(self._draft, valid=True, invalid_because=None)

    @property
    def result(self) -> Result | None:
        """None before the load began: there is nothing to tell."""
        cells = sorted(self._cells, key=lambda cell: (cell.concurrency, cell.replicate))
        return msgspec.structs.replace(self._draft, cells=tuple(cells)) if self._draft else None

    async def _measure(self, target: Target, found: Probe) -> None:
        for replicate, concurrency in self._order.cells():
            name = f"c{concurrency}-r{replicate}"
            shape = self._order.shape(concurrency)
            self._say(
                f"concurrency {concurrency}: {shape.warmups} to warm up, then {shape.requests} or more to measure"
            )
            ramp_s = min(RAMP_LIMIT_S, found.request_ms / 1000)
            loop = ClosedLoop(target.asker(name), shape, ramp_s=ramp_s, ended=_beat(self._say, shape.requests))
            async with metered() as samples:
                try:
                    await loop.run()
                finally:
                    cell = cell_of(
                        loop.records,
                        samples,
                        name=name,
                        concurrency=concurrency,
                        replicate=replicate,
                        warmups=shape.warmups,
                        workload=target.workload,
                        probe=found,
                    )
                    self._cells.append(cell)
            self._say(_heard(cell))


def _at_most(seconds: float) -> str:
    return f"about {seconds:.0f} s at most" if seconds < 120 else f"about {seconds / 60:.0f} min at most"


def _beat(say: Say, requests: int) -> Callable[[int], None]:
    """Called with each measured request; speaks now and then, so that a slow box does not look dead."""
    heard_s = time.monotonic()

    def ended(measured: int) -> None:
        nonlocal heard_s
        if time.monotonic() - heard_s >= BEAT_S:
            heard_s = time.monotonic()
            say(f"  {measured} of at least {requests} measured")

    return ended


def _heard(cell: Cell) -> str:
    """One line about a cell that is done."""
    if cell.failed_checks:
        failed = ", ".join(check.name for check in cell.failed_checks)
        return f"concurrency {cell.concurrency}: failed its checks: {failed}"
    rate = cell.rates.output_tokens if cell.rates else None
    speed = "uncounted" if rate is None else f"{rate:.1f} output tok/s"
    return f"concurrency {cell.concurrency}: {speed} over {cell.window.seconds if cell.window else 0:.0f} s"
