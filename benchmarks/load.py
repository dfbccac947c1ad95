"""The closed loop: c places, each asking again as soon as its answer has ended.

The first c requests are ramped in, because c requests at one instant are a burst that no user sends. Warm-up
requests have the shape and the concurrency of the measured ones and hand over without draining.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable

import msgspec

from benchmarks.timing import Record

Ask = Callable[[int, int], Awaitable[Record]]
"""(index of the request, ``t_sched_ns``) → its record."""

GIVE_UP_FAILURES = 5
NS_PER_S = 1e9


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """How long to load. The load goes on until both minima are met, so that it never drains inside the window."""

    concurrency: int
    warmups: int
    """Requests before the window opens, at least 1; capped by their number and by the length of each."""
    requests: int
    """Least number that must end inside the window."""
    window_s: float
    """Least length of the window."""


class ClosedLoop:
    """One load of one endpoint. ``records`` holds what has ended, in order of ending, also after a cancellation."""

    def __init__(self, ask: Ask, shape: Shape, *, ramp_s: float, ended: Callable[[int], None] = lambda _: None) -> None:
        self.records: list[Record] = []
        self._ask, self._shape, self._ramp_s, self._ended = ask, shape, ramp_s, ended
        self._index = itertools.count()
        self._warming = shape.warmups
        self._opened_ns: int | None = None
        self._measured = 0
        self._failed = 0

    async def run(self) -> None:
        """Returns when every place has ended its last request."""
        async with asyncio.TaskGroup() as group:
            for place in range(self._shape.concurrency):
                group.create_task(self._hold(place))

    async def _hold(self, place: int) -> None:
        await asyncio.sleep(self._ramp_s * place / self._shape.concurrency)
        t_sched_ns = time.perf_counter_ns()
        while not self._enough():
            index = next(self._index)
            record = await self._ask(index, t_sched_ns)
            self._note(index, record)
            # The successor is due the moment this one ended: what lies between is the harness's own delay.
            t_sched_ns = record.t_done_ns

    def _note(self, index: int, record: Record) -> None:
        self.records.append(record)
        self._failed += not record.ok
        if self._opened_ns is not None:
            self._measured += 1
            self._ended(self._measured)
        if index < self._shape.warmups:
            self._warming -= 1
            if not self._warming:
                self._opened_ns = record.t_done_ns

    def _enough(self) -> bool:
        # A server that refuses everything would be asked thousands of times a second.
        if self._failed >= GIVE_UP_FAILURES and 2 * self._failed > len(self.records):
            return True
        if self._opened_ns is None or self._measured < self._shape.requests:
            return False
        return time.perf_counter_ns() - self._opened_ns >= self._shape.window_s * NS_PER_S
