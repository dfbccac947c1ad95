"""What the local Hub does wrong on demand, and its log."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from starlette.types import Message, Send

from tests.hubrepo import CHUNK, Content

TICK_S = 0.05


@dataclass
class Fault:
    """What goes wrong on matching paths. ``times`` counts down; None: always."""

    path: str
    times: int | None = None

    # The answer.
    status: int | None = None
    """Answer this instead, with ``headers`` and the body ``other``."""
    headers: dict[str, str] = field(default_factory=dict)
    """Added to the answer, or put in place of its own: a redirect, a Retry-After, a Link, a Content-Range."""

    # The file.
    flip: int | None = None
    """Invert the byte at this offset of the file."""
    other: Content | None = None
    """These bytes in place of the file's, under its name and hash."""
    short: int = 0
    """The file ends so many bytes early, and Content-Length says so."""
    lying: bool = False
    """With ``short``: Content-Length still claims the whole."""
    endless: bool = False
    """No Content-Length, and after the file's own bytes there come others for ever."""
    whole: bool = False
    """Answer with the whole file, whatever range of it was asked for."""

    # The connection, of any route.
    cut: int | None = None
    """Break it after this many bytes of the body."""
    stall: bool = False
    """Say nothing until the server stops; with ``cut``: after that many bytes of the body."""
    slow: int | None = None
    """Bytes of the body per second."""


@dataclass
class Asked:
    """One line of the request log."""

    method: str
    path: str
    range: str | None
    status: int
    """0: never answered."""
    token: str | None
    """The Authorization header as received."""
    sent_bytes: int = 0
    """Of the body, handed to the connection so far. One that broke may not have carried the last of them."""


class Wire:
    """One answer on its way out: logged, with the fault's headers, slowed, cut or stalled as the fault says."""

    def __init__(self, send: Send, fault: Fault, asked: Asked, log: list[Asked]) -> None:
        self._send, self._fault, self._asked, self._log = send, fault, asked, log
        self._step = max(1, int(fault.slow * TICK_S)) if fault.slow else CHUNK

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._asked.status = message["status"]
            self._log.append(self._asked)
            await self._send({**message, "headers": self._headers(message["headers"])})
            return
        body = memoryview(message.get("body", b""))
        for at in range(0, len(body) if self._asked.method != "HEAD" else 0, self._step):
            await self._pass(body[at : at + self._step])
        await self._send({**message, "body": b""})

    async def _pass(self, piece: memoryview) -> None:
        asked, cut = self._asked, self._fault.cut
        room = len(piece) if cut is None else cut - asked.sent_bytes
        # Counted before it is sent: who has received a byte finds it in the log.
        asked.sent_bytes += min(len(piece), room)
        await self._send({"type": "http.response.body", "body": piece[:room], "more_body": True})
        if room < len(piece):
            if self._fault.stall:
                await asyncio.Event().wait()
            raise ConnectionAbortedError
        # Without a pause an endless body would keep the loop for itself once its reader is gone.
        await asyncio.sleep(TICK_S if self._fault.slow else 0)

    def _headers(self, own: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        put = {key.lower().encode(): value.encode() for key, value in self._fault.headers.items()}
        return [(key, value) for key, value in own if key not in put] + list(put.items())
