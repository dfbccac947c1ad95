"""Deadlines of many waits on one timer: a timer each would cost a request more than parsing it.

Each wait holds one Deadline and moves it as it goes on; a tick looks which have passed. They are kept to within a
tick, which is fine for limits of seconds to minutes.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

TICK_S = 0.1


class Deadline:
    """Calls ``expire`` once its time has passed. It has none until ``within`` sets it."""

    __slots__ = ("_all", "due", "expire")

    def __init__(self, everyone: set[Deadline], expire: Callable[[], object]) -> None:
        self.due = math.inf
        self.expire = expire
        self._all = everyone

    def within(self, seconds: float) -> None:
        self.due = time.monotonic() + seconds

    def allow(self, seconds: float) -> None:
        """So much more than there was."""
        self.due += seconds

    def never(self) -> None:
        self.due = math.inf

    def close(self) -> None:
        """It will not expire any more, whatever is set."""
        self._all.discard(self)


class Deadlines:
    """The deadlines of one event loop. The timer runs as long as there is one."""

    def __init__(self) -> None:
        self._all: set[Deadline] = set()
        self._ticking = False

    def open(self, expire: Callable[[], object]) -> Deadline:
        deadline = Deadline(self._all, expire)
        self._all.add(deadline)
        if not self._ticking:
            self._ticking = True
            self._rearm()
        return deadline

    def _rearm(self) -> None:
        asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def _tick(self) -> None:
        now = time.monotonic()
        for deadline in [deadline for deadline in self._all if deadline.due <= now]:
            deadline.never()
            deadline.expire()
        if self._all:
            self._rearm()
        else:
            self._ticking = False
