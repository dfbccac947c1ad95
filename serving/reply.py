"""Everything that goes back to one client: an answer in one piece, a stream of events, or a refusal; receipts on each.

ASGI's side of the hot path. Receipts: x-ownweights-model, -revision, -engine, -lock once the model is known,
-queue-ms once it was admitted, -ttft-ms once the engine has begun (from the request's last byte, queue included).
"""

from __future__ import annotations

import secrets
import time

from serving.board import Served
from serving.metrics import Tokens
from serving.refusal import Refusal
from serving.visitor import Send


class Reply:
    """One request's answer. ``status`` is what it came to, also where a stream broke after a 200."""

    def __init__(self, send: Send) -> None:
        self.request_id = secrets.token_hex(8)
        self.status = 0
        self.served: Served | None = None
        self.queue_s: float | None = None
        self.ttft_s: float | None = None
        self.tokens: Tokens | None = None
        self._send = send
        self._started = False
        self._streaming = False
        self._since = time.monotonic()

    @property
    def age_s(self) -> float:
        """Since the request was complete."""
        return time.monotonic() - self._since

    def restart_clock(self) -> None:
        """The request is complete now."""
        self._since = time.monotonic()

    def first_byte(self) -> None:
        """The engine has begun its answer; a stream notes that itself, at its first event."""
        if self.ttft_s is None:
            self.ttft_s = self.age_s

    async def whole(self, body: bytes) -> None:
        """An answer with status 200, in one piece."""
        self.status = 200
        await self._whole(body, [])

    async def event(self, data: bytes) -> None:
        """Events of a stream; the first ones open it."""
        if not self._streaming:
            self.first_byte()
            self.status = 200
            self._streaming = True
            head = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]
            await self._send({"type": "http.response.start", "status": 200, "headers": head + self._receipts()})
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        """Close the stream."""
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def refuse(self, refusal: Refusal, *, close: bool = False) -> None:
        """An error in place of the answer, or, where a stream has begun, as its last event, without [DONE].

        ``close`` ends the connection too: what is left of the request is not worth reading.
        """
        self.status = refusal.status
        if self._streaming:
            await self._send({"type": "http.response.body", "body": refusal.event, "more_body": False})
            return
        if self._started:
            return  # cut short of its length: no client can take it for whole
        headers = [(b"connection", b"close")] if close else []
        if refusal.retry_after_s is not None:
            headers.append((b"retry-after", str(refusal.retry_after_s).encode()))
        await self._whole(refusal.body, headers)

    async def _whole(self, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        self._started = True
        head = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *headers]
        await self._send({"type": "http.response.start", "status": self.status, "headers": head + self._receipts()})
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    def _receipts(self) -> list[tuple[bytes, bytes]]:
        receipts = [(b"x-request-id", self.request_id.encode())]
        if served := self.served:
            receipts += [
                (b"x-ownweights-model", served.name.encode("ascii", "replace")),
                (b"x-ownweights-revision", served.revision.encode("ascii", "replace")),
                (b"x-ownweights-engine", served.engine.encode("ascii", "replace")),
                (b"x-ownweights-lock", served.lock.encode("ascii", "replace")),
            ]
        if self.queue_s is not None:
            receipts.append((b"x-ownweights-queue-ms", _ms(self.queue_s)))
        if self.ttft_s is not None:
            receipts.append((b"x-ownweights-ttft-ms", _ms(self.ttft_s)))
        return receipts


def _ms(seconds: float) -> bytes:
    return b"%.1f" % (seconds * 1000)
