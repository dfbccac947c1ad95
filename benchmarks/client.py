"""One OpenAI-compatible endpoint over HTTP: its models, and streamed chat completions with their stamps.

aiohttp on uvloop, because the load client must not be what is measured: httpx spends about ten times the CPU
per chunk.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from time import perf_counter_ns
from types import SimpleNamespace

import aiohttp
import msgspec

from benchmarks.sse import Events
from benchmarks.timing import Outcome, Record, Recorder

CONNECT_S = 10
SILENCE_S = 300
"""Longest wait for the next byte: a prompt may queue behind others and then be read for minutes on a CPU."""
READ_BUFFER_BYTES = 1 << 20
RECEIPT = "x-ownweights-"


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """``base_url`` ends in /v1 or the like, without a slash. ``key`` stays out of every document and repr."""

    base_url: str
    key: str | None = None

    def __repr__(self) -> str:
        return f"Endpoint({self.base_url})"


class Client:
    """Asks one endpoint. Make it with ``connect``."""

    def __init__(self, session: aiohttp.ClientSession, base_url: str) -> None:
        self._session = session
        self._base_url = base_url
        self.receipts: dict[str, str] = {}
        """``x-ownweights-*`` headers of the latest answer, without that prefix."""

    async def get(self, path: str) -> tuple[int, bytes]:
        """Status and body. Raises aiohttp.ClientError or TimeoutError."""
        async with self._session.get(self._base_url + path, allow_redirects=False) as response:
            return response.status, await response.read()

    async def chat(self, body: bytes, *, t_sched_ns: int | None = None) -> Record:
        """One streamed completion. Whatever goes wrong is in the record's outcome; only cancellation is raised.

        The send stamp is taken before a connection is looked for: kept-alive connections make that free after
        the warm-up, and where a server closes them the handshake is what its users wait for.
        """
        sent_ns = perf_counter_ns()
        recorder = Recorder(t_sched_ns=sent_ns if t_sched_ns is None else t_sched_ns, t_send_ns=sent_ns)
        outcome, detail = Outcome.OK, None
        try:
            outcome, detail = await self._stream(body, recorder)
        except TimeoutError as error:
            outcome, detail = Outcome.TIMEOUT, str(error) or None
        except aiohttp.ClientPayloadError:
            outcome = Outcome.CUT
        except aiohttp.ClientError as error:
            outcome, detail = Outcome.CONNECTION, str(error) or type(error).__name__
        return recorder.close(perf_counter_ns(), outcome, detail)

    async def _stream(self, body: bytes, recorder: Recorder) -> tuple[Outcome, str | None]:
        async with await self._post(body, recorder) as response:
            recorder.headers(perf_counter_ns())
            self.receipts = {
                name.lower().removeprefix(RECEIPT): value
                for name, value in response.headers.items()
                if name.lower().startswith(RECEIPT)
            }
            if response.status != 200:
                return Outcome.HTTP, f"HTTP {response.status}: {_told(await response.read())}"
            if response.content_type != "text/event-stream":
                return Outcome.MALFORMED, f"not an event stream but {response.content_type}"
            events = Events()
            async for packet in response.content.iter_any():
                now_ns = perf_counter_ns()
                for payload in events.feed(packet):
                    recorder.feed(now_ns, payload)
        return Outcome.OK, None

    async def _post(self, body: bytes, recorder: Recorder) -> aiohttp.ClientResponse:
        """Send, and send again where a kept connection turns out to be closed before an answer began.

        llama.cpp's server closes after every stream while it announces keep-alive; every HTTP client resends then.
        On a connection of its own a request is sent once.
        """
        while True:
            attempt = _Attempt()
            try:
                return await self._session.post(
                    f"{self._base_url}/chat/completions",
                    data=body,
                    allow_redirects=False,
                    trace_request_ctx=attempt,
                )
            except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
                if not attempt.reused:
                    raise
                recorder.resent += 1


class _Attempt:
    """Whether a request went out on a connection that had been used before."""

    reused = False


async def _note_reuse(_: object, context: SimpleNamespace, __: object) -> None:
    if isinstance(context.trace_request_ctx, _Attempt):
        context.trace_request_ctx.reused = True


@contextlib.asynccontextmanager
async def connect(endpoint: Endpoint) -> AsyncIterator[Client]:
    """A client without a connection limit of its own: a hidden cap would be measured as the server's."""
    headers = {"content-type": "application/json", "accept-encoding": "identity"}
    if endpoint.key:
        headers["authorization"] = f"Bearer {endpoint.key}"
    tracing = aiohttp.TraceConfig()
    tracing.on_connection_reuseconn.append(_note_reuse)
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        headers=headers,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENCE_S),
        read_bufsize=READ_BUFFER_BYTES,
        trace_configs=[tracing],
    )
    async with session:
        yield Client(session, endpoint.base_url)


def _told(body: bytes) -> str:
    """The message of an OpenAI-shaped error, else the beginning of the body."""
    try:
        return str(msgspec.json.decode(body)["error"]["message"])[:300]
    except (msgspec.DecodeError, KeyError, TypeError):
        return body[:300].decode(errors="replace")
