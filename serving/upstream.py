"""The client to the engines: one HTTP exchange over a fresh connection to a unix socket.

No pool: llama.cpp drops a kept-alive connection after a few streams, and a fresh one to a unix socket costs some
30 µs. The engine sees headers from our list only. A body is handed on de-chunked, as it arrives; a reader that does
not keep up pauses the engine's socket.

    UpstreamError
    ├── ConnectFailed   nobody listens there
    ├── Died            the connection ended before the answer did
    ├── Nonsense        what came is not HTTP, or beyond any bound
    └── Silent          a deadline passed
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import cast

import httptools

from serving.deadlines import Deadline, Deadlines

MAX_HEAD_BYTES = 32 * 1024
PAUSE_ABOVE_BYTES = 256 * 1024


class UpstreamError(Exception):
    """The engine did not give an answer."""


class ConnectFailed(UpstreamError):
    """Nobody listens at the socket."""


class Died(UpstreamError):
    """The connection ended before the answer did."""


class Nonsense(UpstreamError):
    """What came is not HTTP, or beyond any bound."""


class Silent(UpstreamError):
    """A deadline passed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long we wait for an engine. A long prompt on a CPU takes minutes to its first token."""

    connect_s: float = 5.0
    first_byte_s: float = 900.0
    idle_s: float = 300.0
    deadlines: Deadlines = field(default_factory=Deadlines)
    """Where those who wait are kept, for as long as one of them does."""


def request(path: str, body: bytes, request_id: str) -> bytes:
    """The whole request in one piece."""
    head = (
        f"POST {path} HTTP/1.1\r\nhost: engine\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\nx-request-id: {request_id}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body


async def send(socket: str, message: bytes, patience: Patience) -> Exchange:
    """Connect and send ``message``; the answer is read from the exchange. Raises ConnectFailed.

    The caller closes the exchange in any case: closing an unfinished one is how the engine learns to stop.
    """
    loop = asyncio.get_running_loop()
    exchange = Exchange(loop, message, patience)
    try:
        async with asyncio.timeout(None) as attempt:
            deadline = patience.deadlines.open(lambda: attempt.reschedule(0))
            deadline.within(patience.connect_s)
            try:
                await loop.create_unix_connection(lambda: exchange, socket)
            finally:
                deadline.close()
    except OSError as error:  # a TimeoutError is one
        raise ConnectFailed(str(error)) from error
    except BaseException:
        exchange.close()  # cancelled in the moment of success
        raise
    return exchange


class Exchange(asyncio.Protocol):
    """One answer, as it arrives."""

    def __init__(self, loop: asyncio.AbstractEventLoop, message: bytes, patience: Patience) -> None:
        self.status = 0
        self.content_type = b""
        self._loop = loop
        self._message = message
        self._patience = patience
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._chunks: list[bytes] = []
        self._held_bytes = 0
        self._head_bytes = 0
        self._framed = False
        self._began = False
        self._complete = False
        self._paused = False
        self._failure: UpstreamError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._deadline: Deadline | None = None

    async def read(self) -> bytes:
        """The body's next bytes, all that are there; b"" at its end. ``status`` is known from the first call on.

        Raises Died, Nonsense or Silent, after everything that came before the failure has been read.
        """
        while not self._chunks:
            if self._failure:
                raise self._failure
            if self._complete:
                return b""
            await self._news()
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._held_bytes = 0
        if self._paused and self._transport:
            self._paused = False
            self._transport.resume_reading()
        return data

    def close(self) -> None:
        """Drop the connection now, whatever is still under way."""
        if self._transport:
            self._transport.abort()

    async def _news(self) -> None:
        assert self._deadline  # connected
        self._waiter = self._loop.create_future()
        self._deadline.within(self._patience.idle_s if self._began else self._patience.first_byte_s)
        try:
            await self._waiter
        finally:
            self._deadline.never()
            self._waiter = None

    def _expire(self) -> None:
        self._fail(Silent("the engine went silent" if self._began else "no first byte came in time"))

    def _wake(self) -> None:
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, failure: UpstreamError) -> None:
        self._failure = self._failure or failure
        self.close()
        self._wake()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._deadline = self._patience.deadlines.open(self._expire)
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._message)

    def data_received(self, data: bytes) -> None:
        if self._complete or self._failure:
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self._complete:
                self._fail(Nonsense(f"not HTTP: {error}"))
            return
        if not self.status:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._fail(Nonsense(f"headers beyond {MAX_HEAD_BYTES} bytes"))
        if self._held_bytes > PAUSE_ABOVE_BYTES and not self._paused and self._transport:
            self._paused = True
            self._transport.pause_reading()

    def connection_lost(self, error: Exception | None) -> None:
        if self._deadline:
            self._deadline.close()
        if not self._complete:
            if self.status and not self._framed:
                # Neither length nor chunks: the end of the connection is the end of the body.
                self._complete = True
            else:
                self._failure = self._failure or Died(str(error or "the connection was closed"))
        self._wake()

    # httptools; what follows the answer in the same read is nobody's

    def on_message_begin(self) -> None:
        if not self._complete:
            self._framed = False
            self.content_type = b""

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._complete:
            return
        match name.lower():
            case b"content-type":
                self.content_type = value.partition(b";")[0].strip().lower()
            case b"content-length" | b"transfer-encoding":
                self._framed = True

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200 and not self._complete:  # 1xx only announces the answer
            self.status = status

    def on_body(self, data: bytes) -> None:
        if self._complete:
            return
        self._began = True
        self._chunks.append(data)
        self._held_bytes += len(data)
        self._wake()

    def on_message_complete(self) -> None:
        if self.status:
            self._complete = True
            self._wake()
