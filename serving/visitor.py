"""The client at the other end of ASGI: its body comes in, its answer goes out, and it may leave or dawdle meanwhile.

``async with`` a visitor is the time that it is with us. When it leaves, or takes longer than the limits, whatever is
awaited inside is cancelled and the block ends in Gone, or in Refusal 408 where the body was not complete.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from serving import document, proxy
from serving.admission import QUEUE_PLACES
from serving.deadlines import Deadlines
from serving.refusal import Refusal

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Receive = Callable[[], Awaitable[Message]]
Scope = MutableMapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long clients may take, and how many may wait."""

    body_s: float = 10.0
    """For a body; on top, a second for each ``body_bytes_per_s`` that have come."""
    body_bytes_per_s: int = 64 * 1024
    write_s: float = 60.0
    """For a client that has stopped reading."""
    queue_places: int = QUEUE_PLACES


class Gone(Exception):
    """The client has left, or has stopped reading."""


class Visitor:
    """One request's client."""

    def __init__(self, receive: Receive, send: Send, deadlines: Deadlines, limits: Limits) -> None:
        self.complete = False
        """Its whole request is here."""
        self._receive = receive
        self._send = send
        self._limits = limits
        self._presence = asyncio.timeout(None)
        self._deadline = deadlines.open(self._end)
        self._watcher: asyncio.Task[None] | None = None
        self._ended = False

    async def __aenter__(self) -> Visitor:
        await self._presence.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._deadline.close()
        if self._watcher:
            self._watcher.cancel()
        try:
            await self._presence.__aexit__(kind, error, trace)
        except TimeoutError:
            if self.complete:
                raise Gone from None
            raise Refusal(408, "the body came too slowly", code="body_timeout") from None

    async def body(self, headers: proxy.Headers) -> bytes:
        """The whole request body; from then on its leaving is noticed. Raises Refusal 413 or 415, and Gone."""
        proxy.expect_body(headers)
        body = bytearray()
        self._deadline.within(self._limits.body_s)
        while (message := await self._receive())["type"] != "http.disconnect":
            body += message["body"]
            if len(body) > document.MAX_BYTES:
                raise proxy.too_large()
            if not message["more_body"]:
                self.complete = True
                self._deadline.never()
                self._watcher = asyncio.create_task(self._watch())
                return bytes(body)
            self._deadline.allow(len(message["body"]) / self._limits.body_bytes_per_s)
        raise Gone

    async def send(self, message: Message) -> None:
        """ASGI's send, with a deadline for the client's reading."""
        self._deadline.within(self._limits.write_s)
        await self._send(message)
        self._deadline.never()

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._end()

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self._presence.reschedule(0)
