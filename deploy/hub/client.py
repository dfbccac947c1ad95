"""Requests to a Hub that end: bounded in time, bytes, tries and redirects, with the token for its own host only.

huggingface_hub's client has no deadline and no limit of size, does not retry a revision, and carries the token
wherever a ``Link`` header points. Its token and its names for what went wrong are used here.
"""

from __future__ import annotations

import multiprocessing
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from multiprocessing.pool import ThreadPool
from typing import TYPE_CHECKING, TypeVar

from deploy import transport
from deploy.errors import PlaceError
from deploy.hub.errors import Busy, explained, overloaded

if TYPE_CHECKING:
    import httpx2

T = TypeVar("T")

RETRY_STATUSES = frozenset({429, 500, 502, 503, 504})
BACKOFF_S = (0.5, 1.0, 2.0)
RETRY_AFTER_CAP_S = 30.0
CONNECT_S, READ_S = 5.0, 10.0
GRACE_S = CONNECT_S + READ_S
"""What one step may take that was begun just before the time was up."""
MAX_REDIRECTS = 5
THREADS = 8
PROXY = "check HF_ENDPOINT and the proxy"
CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(?:\d+|\*)")


class Question:
    """What is asked of one repository, and what its answers may cost in all: seconds and bytes, retries included.

    ``home`` is the endpoint; ``where`` is the same for people. May be asked by several threads at once.
    """

    def __init__(
        self,
        repo: str,
        revision: str,
        *,
        home: str,
        where: str,
        limit_s: float,
        limit_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.repo, self.revision, self.home, self.where = repo, revision, home, where
        self._clock = clock
        self._limit_s, self._limit_bytes = limit_s, limit_bytes
        self._deadline, self._bytes = clock() + limit_s, 0

    def page(self, url: str) -> tuple[bytes, str | None]:
        """A whole answer, and the address of the next page if there is one. Raises PlaceError."""

        def ask() -> tuple[bytes, str | None]:
            with self._opened(url) as response:
                following = response.links.get("next", {}).get("url")
                return self._body(response), following and str(response.url.join(following))

        return self._patiently(ask)

    def read(self, url: str, start: int, stop: int, *, ranged: bool) -> bytes:
        """The bytes [start, stop) of what lies there, or up to its end, and not many more are read than that.

        ``ranged``: ask for just these, which a server may ignore. Raises PlaceError.
        """

        def ask() -> bytes:
            with self._opened(url, {"Range": f"bytes={start}-{stop - 1}"} if ranged else {}) as response:
                skipped = start
                if response.status_code == 206:
                    self._check_range(response, start)
                    skipped = 0
                elif stop > self._limit_bytes:
                    raise PlaceError("the Hub sends whole files for ranges of them", where=self.where, hint=PROXY)
                return self._body(response, enough=stop - start + skipped)[skipped:]

        return self._patiently(ask)

    def in_time(self, calls: Sequence[Callable[[], T]]) -> list[T]:
        """The results of calls made at once, or PlaceError.

        In threads that may be left behind: a name lookup, or the head of an answer that drips, ends when it likes.
        """
        with ThreadPool(min(len(calls), THREADS)) as pool:
            results = pool.imap(lambda call: call(), calls)
            try:
                return [results.next(max(0.0, self._left_s()) + GRACE_S) for _ in calls]
            except multiprocessing.TimeoutError:
                raise self._late() from None

    def _left_s(self) -> float:
        return self._deadline - self._clock()

    def _late(self) -> PlaceError:
        hint = "try again, or point HF_ENDPOINT to a faster mirror"
        return PlaceError(f"`{self.repo}` took longer than {self._limit_s:.0f} s", where=self.where, hint=hint)

    def _spend(self, count_bytes: int = 0) -> None:
        self._bytes += count_bytes
        if self._left_s() <= 0:
            raise self._late()
        if self._bytes > self._limit_bytes:
            raise PlaceError(
                f"the Hub's answers about `{self.repo}` have more than {self._limit_bytes} bytes",
                where=self.where,
                hint="check HF_ENDPOINT: no repository of a model needs as many",
            )

    def _patiently(self, call: Callable[[], T]) -> T:
        """Call it a few times; what stays wrong becomes one PlaceError."""
        import httpx2

        for wait_s in (*BACKOFF_S, None):
            try:
                return call()
            except Busy as busy:
                pause_s = wait_s if busy.retry_after_s is None else busy.retry_after_s
                if wait_s is None or pause_s is None or pause_s > min(RETRY_AFTER_CAP_S, self._left_s()):
                    raise overloaded(busy, self.where) from None
                time.sleep(pause_s)
            except (httpx2.ReadError, httpx2.RemoteProtocolError) as error:
                if wait_s is None:
                    raise self._explained(error) from None
                time.sleep(wait_s)
            except (OSError, httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
                # Without its cause: the exception of a client may quote the request, and with it the token.
                raise self._explained(error) from None
        raise AssertionError("the last try returns or raises")

    def _explained(self, error: Exception) -> PlaceError:
        return explained(error, self.repo, self.revision, self.where)

    @contextmanager
    def _opened(self, url: str, more: dict[str, str] | None = None) -> Iterator[httpx2.Response]:
        """The answer at the end of its redirects, its body not yet read."""
        from huggingface_hub.utils._validators import validate_repo_id

        validate_repo_id(self.repo)
        for _ in range(MAX_REDIRECTS + 1):
            self._spend()
            headers = _headers(url, self.home) | (more or {})
            with client().stream("GET", transport.bare(url), headers=headers) as response:
                if response.has_redirect_location:
                    url = str(response.url.join(response.headers["location"]))
                    continue
                self._refuse(response)
                yield response
                return
        raise PlaceError(f"more than {MAX_REDIRECTS} redirects in a row", where=self.where, hint=PROXY)

    def _refuse(self, response: httpx2.Response) -> None:
        import httpx2
        from huggingface_hub.utils import hf_raise_for_status  # type: ignore[attr-defined]

        if response.status_code in RETRY_STATUSES:
            asked = response.headers.get("retry-after", "").strip()
            raise Busy(response.status_code, float(asked) if asked.isdecimal() else None)
        if response.is_error:
            # Without its body, of any length and in any alphabet: what went wrong is in the headers.
            said = {key: value for key, value in response.headers.items() if key.startswith("x-error-")}
            hf_raise_for_status(httpx2.Response(response.status_code, headers=said, request=response.request))

    def _body(self, response: httpx2.Response, *, enough: int | None = None) -> bytes:
        if response.headers.get("content-encoding", "identity") != "identity":
            # Its size would tell nothing about the size of what is in it.
            raise PlaceError("the Hub sends what it was not asked for: compressed", where=self.where, hint=PROXY)
        content = bytearray()
        for chunk in response.iter_raw():
            content += chunk
            if enough is not None and len(content) >= enough:
                break
            self._spend(len(chunk))
        return bytes(content[:enough])

    def _check_range(self, response: httpx2.Response, start: int) -> None:
        said = response.headers.get("content-range", "")
        match = CONTENT_RANGE.fullmatch(said)
        if not match or int(match[1]) != start:
            message = f"the Hub sends another range than the one from byte {start}"
            raise PlaceError(message, where=self.where, hint=PROXY)


def answers(home: str) -> bool:
    """Whether there is a Hub. Asked without the token."""
    import httpx2

    try:
        transport.origin(home)
        # An empty listing of any model: cheap, and needs no name that every mirror would have.
        url = httpx2.URL(f"{transport.bare(home)}/api/models", params={"limit": 1})
        with client().stream("GET", url, headers=transport.headers(home, token=False)) as response:
            status = response.status_code
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, PlaceError):
        return False
    # 403 and 407 are a company's proxy talking, 5xx a gateway with no Hub behind it.
    return status < 500 and status not in (403, 407)


@cache
def client() -> httpx2.Client:
    """One for the process, for its connections to be used again. Redirects are followed by hand."""
    import httpx2

    return httpx2.Client(timeout=httpx2.Timeout(READ_S, connect=CONNECT_S))


def _headers(url: str, home: str) -> dict[str, str]:
    """With the user's secrets for the endpoint's own scheme, host and port only."""
    import httpx2

    own, there = httpx2.URL(home), httpx2.URL(url)
    if (there.scheme, there.host, there.port) == (own.scheme, own.host, own.port):
        return transport.headers(home, token=True)
    return transport.headers(url, token=False)
