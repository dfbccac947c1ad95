"""How well places can be reached from here: each is asked for the first MiB of a variant's largest file, in turn.

What arrives proves nothing, it is about the way and not about the bytes, and is thrown away: all but a whole wheel.
"""

from __future__ import annotations

import queue
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import msgspec

from deploy import flock, paths
from deploy.errors import UserError
from deploy.lockfile import File, Variant
from deploy.stop import Stop, Stopped
from deploy.weights import cache, places
from deploy.weights.places import Index, Place
from deploy.weights.xet import Xet

ENOUGH_BYTES = 1 << 20
DEADLINE_S = 10.0
GRACE_S = 1.0
"""So long a place has to end once it is stopped. One that waits for a connection or an answer does not hear of it."""
UNASKED = "not asked: before the first byte it fetches up to 64 MB"


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """What one place did. Times are from the beginning of the question; None: that much never came."""

    variant: str
    file: str
    size: int
    here_bytes: int
    """Of the file, in the cache already: all of it, or what an interrupted pull left."""
    place: str
    reachable: bool | None = None
    """It gave at least one byte. None: it was not asked."""
    first_byte_s: float | None = None
    first_mib_s: float | None = None
    """Or all of a smaller file."""
    bytes_per_s: int | None = None
    """Of what came, the wait for its first byte included."""
    error: str | None = None


def probes(
    variant: Variant, *, deadline_s: float = DEADLINE_S, clock: Callable[[], float] = time.monotonic
) -> Iterator[Probe]:
    """One per place of the variant's largest file, in the lock's order, each as soon as it is known.

    ``clock`` gives seconds and measures; ``deadline_s`` is the real time that each place has.
    """
    file = max(variant.files, key=lambda file: file.size)
    for number, place in enumerate(places.of(variant, file)):
        if isinstance(place, Xet):
            yield _unasked(variant, file, place)
        else:
            yield _Probing(variant, file, number, clock).run(deadline_s)


class _Enough(Exception):
    """A MiB came."""


class _Probing:
    """One place at work, in a thread that can be left behind."""

    def __init__(self, variant: Variant, file: File, number: int, clock: Callable[[], float]) -> None:
        self._variant, self._file, self._clock = variant, file, clock
        self._stop = Stop()
        # Made again for each, because what stops one must not stop the others.
        self._place: Place = places.of(variant, file, arriving=self._reach, stop=self._stop)[number]
        self._goal = min(ENOUGH_BYTES, file.size, *_first_wheel(self._place))
        self._arrived = 0
        self._began_s = self._first_s = self._last_s = clock()
        self._outcome: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def run(self, deadline_s: float) -> Probe:
        thread = threading.Thread(target=self._work, daemon=True)
        thread.start()
        try:
            outcome = self._outcome.get(timeout=deadline_s)
        except queue.Empty:
            outcome = Stopped(f"no MiB within {deadline_s:g} s")
        finally:
            self._stop.set()
            thread.join(GRACE_S)
            _sweep(self._place)
        return self._probe(outcome)

    def _work(self) -> None:
        handed_on = 0
        try:
            with closing(self._place.open(self._variant, self._file, 0)) as chunks:
                for chunk in chunks:
                    handed_on += len(chunk)
                    self._reach(handed_on)
        except BaseException as error:  # noqa: BLE001  # the edge of a thread: judged in the one that asked
            self._outcome.put(error)
        else:
            self._outcome.put(None)

    def _reach(self, position: int) -> None:
        """So far it is, or is about to be. Raises _Enough, which ends the place there and then."""
        if position <= self._arrived:
            return
        self._last_s = self._clock()
        if not self._arrived:
            self._first_s = self._last_s
        self._arrived = position
        if self._arrived >= self._goal:
            raise _Enough

    def _probe(self, outcome: BaseException | None) -> Probe:
        if not isinstance(outcome, UserError | Stopped | _Enough | None):
            raise outcome
        whole, took_s = self._arrived >= self._goal, self._last_s - self._began_s
        return msgspec.structs.replace(
            _unasked(self._variant, self._file, self._place),
            reachable=self._arrived > 0,
            first_byte_s=self._first_s - self._began_s if self._arrived else None,
            first_mib_s=took_s if whole else None,
            bytes_per_s=int(self._arrived / took_s) if self._arrived and took_s else None,
            error=None if whole else " ".join(str(outcome or f"ended after {self._arrived} bytes").split()),
        )


def _unasked(variant: Variant, file: File, place: Place) -> Probe:
    return Probe(
        variant=variant.key,
        file=file.path,
        size=file.size,
        here_bytes=_here_bytes(variant, file),
        place=place.name,
        error=UNASKED,
    )


def _first_wheel(place: Place) -> tuple[int, ...]:
    """The size of what the first wheel carries: a probe stays within it."""
    return tuple(wheel.size for wheel in place.wheels[:1]) if isinstance(place, Index) else ()


def _sweep(place: Place) -> None:
    """Delete what pip had of a wheel. A finished one stays: the next pull need not fetch it."""
    for wheel in place.wheels[:1] if isinstance(place, Index) else ():
        folder = paths.wheels_dir() / wheel.sha256
        with flock.tried(folder / "lock") as held:
            if held and not any(folder.glob("*.whl")):
                shutil.rmtree(folder, ignore_errors=True)


def _here_bytes(variant: Variant, file: File) -> int:
    """Unproved: `verify` hashes."""
    for path in (cache.blob(variant, file), cache.part(variant, file)):
        if path.exists():
            return min(path.stat().st_size, file.size)
    return 0
