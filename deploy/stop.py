"""The end of a pull, heard by threads that wait: a word on their way, and a push for those that sit in a read."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


class Stopped(Exception):
    """It was stopped from outside. No failure of its own: the reason lies with whoever stopped it."""


class Stop:
    """Set once, by any thread."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._wakers: list[Callable[[], object]] = []
        self._lock = threading.Lock()

    def set(self) -> None:
        """End all that look, sleep or can be woken."""
        with self._lock:
            self._event.set()
            wakers = list(self._wakers)
        for wake in wakers:
            _push(wake)

    def check(self) -> None:
        """Raises Stopped once it is set."""
        if self._event.is_set():
            raise Stopped

    def sleep(self, pause_s: float) -> None:
        """Raises Stopped when it is set, without waiting for the rest."""
        if self._event.wait(pause_s):
            raise Stopped

    @contextmanager
    def waking(self, wake: Callable[[], object]) -> Iterator[None]:
        """``wake`` is called, from the thread that sets it, if that happens while the block runs."""
        with self._lock:
            self._wakers.append(wake)
            late = self._event.is_set()
        if late:
            _push(wake)
        try:
            yield
        finally:
            with self._lock:
                self._wakers.remove(wake)


def _push(wake: Callable[[], object]) -> None:
    # What it would wake may have ended by itself in this very moment.
    with suppress(OSError, ValueError, RuntimeError):
        wake()
