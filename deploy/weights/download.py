"""A file's bytes by HTTP Range: continued after every cut, given up where nothing worth waiting for comes any more."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deploy import transport
from deploy.errors import PlaceError
from deploy.hub.errors import shown
from deploy.stop import Stop

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

CHUNK_BYTES = 1 << 20
HEALTHY_BYTES = 1 << 16
"""So much since the last failure and the failures in a row are forgotten: more than a drip brings in one window."""
TRIES = 6
"""In a row."""
TRIES_UNMET = 2
"""The same for a Hub that has never answered: the next place should not wait for a minute."""
TRIES_IN_ALL = 50
"""For one file, and one more for every so many bytes of it, whatever came in between."""
BYTES_PER_TRY = 1 << 26
FLOOR_BYTES_PER_S = 2000
WINDOW_S = 30.0
"""A rate below the floor for so long is a failure, as a cut is: a byte now and then would defeat any read timeout."""
RETRY_AFTER_CAP_S = 30.0
BACKOFF_CAP_S = 5.0
AGAIN = frozenset({408, 429, 500, 502, 503, 504})
DIGITS = 19
"""Of a number in a header: no size has more, and Python refuses to read thousands of them."""
NUMBER = rf"[0-9]{{1,{DIGITS}}}"
CONTENT_RANGE = re.compile(rf"bytes ({NUMBER})-{NUMBER}/({NUMBER}|\*)")
RETRY_AFTER = re.compile(NUMBER)
MIRROR = "HF_ENDPOINT=https://a.mirror ownweights pull  # where the Hub itself cannot be reached"


class Again(Exception):
    """A failure that may pass. ``pause_s`` is how long the server asked us to wait."""

    def __init__(self, message: str, *, pause_s: float | None = None, ranged: bool = True) -> None:
        super().__init__(message)
        self.pause_s = pause_s
        self.ranged = ranged
        """False: ask for the whole file next time, ranges of it cannot be had."""


class Patience:
    """How many failures are borne, in a row and in all."""

    def __init__(self, size: int) -> None:
        self.met = False
        """Whether the server has ever answered."""
        self._left = TRIES_IN_ALL + size // BYTES_PER_TRY
        self._row = 0
        self._arrived = 0

    def arrived(self, count: int) -> None:
        self._arrived += count
        if self._arrived >= HEALTHY_BYTES:
            self._row = 0

    def failed(self, error: Exception, said: str) -> float:
        """Seconds to wait before the next try. Raises PlaceError where there is none."""
        self._row, self._left, self._arrived = self._row + 1, self._left - 1, 0
        if self._row >= (TRIES if self.met else TRIES_UNMET):
            raise PlaceError(f"gave up after {self._row} tries: {said}", hint=MIRROR)
        if not self._left:
            raise PlaceError(f"gave up after too many failures, the last one: {said}", hint="ownweights pull")
        asked = error.pause_s if isinstance(error, Again) else None
        return asked if asked is not None else min(0.5 * 2 ** (self._row - 1), BACKOFF_CAP_S)


class Pace:
    """The rate of one body, window by window."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since = clock()
        self._arrived = 0

    def arrived(self, count: int) -> None:
        """Raises Again at the end of a window in which too little came."""
        self._arrived += count
        now = self._clock()
        passed_s = now - self._since
        if passed_s < WINDOW_S:
            return
        if self._arrived < FLOOR_BYTES_PER_S * passed_s:
            raise Again(f"only {self._arrived} bytes came in {passed_s:.0f} s")
        self._since, self._arrived = now, 0


@dataclass(frozen=True)
class Download:
    """One file of a known size at an address. ``headers`` go with every request to its host."""

    url: str
    size: int
    headers: dict[str, str]
    stop: Stop
    sleep: Callable[[float], None]
    clock: Callable[[], float] = time.monotonic

    def read(self, position: int) -> Generator[bytes, None, None]:
        """The bytes from ``position``, in chunks of at most 1 MiB. Raises PlaceError: what, and why not; Stopped."""
        from urllib3.exceptions import HTTPError

        patience, ranged = Patience(self.size), True
        while position < self.size:
            try:
                for chunk in self._body(position, patience, ranged=ranged):
                    position += len(chunk)
                    patience.arrived(len(chunk))
                    yield chunk
                if position < self.size:
                    raise Again(f"ended at byte {position} of {self.size}")
            except Again as error:
                ranged = ranged and error.ranged
                self._pause(patience.failed(error, str(error)))
            except HTTPError as error:
                self._pause(patience.failed(error, shown(transport.reason(error))))

    def _pause(self, pause_s: float) -> None:
        # A body that ends because we were stopped looks like any other cut.
        self.stop.check()
        self.sleep(pause_s)

    def _body(self, position: int, patience: Patience, *, ranged: bool) -> Generator[bytes, None, None]:
        """The bytes from ``position``, whatever part of the file one answer holds."""
        pace = Pace(self.clock)
        asked = {"Range": f"bytes={position}-"} if position and ranged else {}
        answer, host = transport.get(self.url, self.headers | asked, self.stop)
        with closing(answer), self.stop.waking(answer.shutdown):
            patience.met = True
            surplus = position - _start(answer, host, position, self.size)
            while chunk := answer.read1(CHUNK_BYTES, decode_content=False):
                self.stop.check()
                pace.arrived(len(chunk))
                kept = chunk[surplus:]
                surplus -= len(chunk) - len(kept)
                if kept:
                    yield kept


def _start(answer: BaseHTTPResponse, host: str, position: int, size: int) -> int:
    """The byte of the file at which the answer starts. Raises Again, or PlaceError where asking again is no use."""
    start, total = 0, answer.headers.get("Content-Length", "*")
    if answer.status == 206:
        said = answer.headers.get("Content-Range")
        found = CONTENT_RANGE.fullmatch(said or "")
        if found is None or int(found[1]) > position:
            raise Again(f"asked for bytes from {position}, was answered with {shown(said or 'none')}", ranged=False)
        start, total = int(found[1]), found[2]
    elif answer.status == 416:
        raise Again(f"has no bytes from {position} on", ranged=False)
    elif answer.status in AGAIN:
        raise Again(_status(answer, host), pause_s=_retry_after_s(answer))
    elif answer.status != 200:
        hint = "hf auth login  # and accept the model's terms on its page" if answer.status in (401, 403) else None
        raise PlaceError(_status(answer, host), hint=hint)
    encoding = answer.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        # Its size would tell nothing about the size of what is in it.
        raise PlaceError(f"{host} sends what it was not asked for: compressed by {shown(encoding)}")
    if total.isdecimal() and (len(total) > DIGITS or int(total) != size):
        raise PlaceError(f"{host} has {shown(total)} bytes, {size} are locked")
    return start


def _status(answer: BaseHTTPResponse, host: str) -> str:
    """One line: the status, and what the Hub says about it in its own headers."""
    said = (answer.headers.get(name) for name in ("X-Error-Code", "X-Error-Message"))
    return " ".join([f"{host} answered HTTP {answer.status}", *dict.fromkeys(shown(word) for word in said if word)])


def _retry_after_s(answer: BaseHTTPResponse) -> float | None:
    said = answer.headers.get("Retry-After", "")
    return min(float(said), RETRY_AFTER_CAP_S) if RETRY_AFTER.fullmatch(said) else None
