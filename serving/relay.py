"""The hot path as plain ASGI: read the body, decide, wait for a slot, ask the engine, pass on what it says.

Life of a request: body read (capped, with a rate floor) → `proxy.decide` → line of the model → request to the engine
→ first byte → events passed on or put together, or a whole answer → counted. From the body's end on the visitor is
watched: when it leaves, whatever is under way is cancelled, and closing the engine's connection on the way out frees
its slot.
A pipelining client is the one exception: uvicorn stops reading from it, so its leaving shows at the end only.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from serving import answers, document, proxy, upstream
from serving.admission import Admission
from serving.assembly import Assembly
from serving.board import Board, Entry, State
from serving.metrics import NO_MODEL, Metrics, Tokens
from serving.proxy import Order
from serving.refusal import Refusal, died, nonsense, silent, unavailable
from serving.reply import Reply
from serving.sse import Stream
from serving.upstream import ConnectFailed, Died, Exchange, Nonsense, Patience, Silent, UpstreamError
from serving.visitor import Gone, Limits, Receive, Scope, Send, Visitor

MAX_ANSWER_BYTES = 128 * 1024 * 1024
"""A whole answer: a batch of embeddings is the largest."""
MAX_COMPLAINT_BYTES = 64 * 1024
CLIENT_LEFT = 499
Take = Callable[[bytes], Awaitable[None]]
HEAVY_BYTES = 128 * 1024
"""A body beyond this is read in a thread: parsing it would hold up everybody else's tokens."""


class Relay:
    """ASGI application for the paths of ``parameters.PATHS``; the caller has checked path, method and key."""

    def __init__(self, board: Board, metrics: Metrics, *, limits: Limits, patience: Patience) -> None:
        self._board = board
        self._metrics = metrics
        self._limits = limits
        self._patience = patience
        self._admission = Admission(limits.queue_places)
        self._heavy = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Exactly one answer, whatever happens, unless the client leaves before it."""
        visitor = Visitor(receive, send, self._patience.deadlines, self._limits)
        reply = Reply(visitor.send)
        try:
            async with visitor:
                await self._answer(scope, visitor, reply)
        except Refusal as refusal:
            await reply.refuse(refusal, close=not visitor.complete)
        except Gone:
            reply.status = CLIENT_LEFT
        except asyncio.CancelledError:
            # Only uvicorn cancels us, when its grace time is over; the client still gets a proper end.
            await reply.refuse(unavailable("the gateway is shutting down", code="shutting_down"), close=True)
        finally:
            self._count(reply)

    def _count(self, reply: Reply) -> None:
        model = reply.served.name if reply.served else NO_MODEL
        self._metrics.ended(model, reply.status, duration_s=reply.age_s, ttft_s=reply.ttft_s, tokens=reply.tokens)

    async def _answer(self, scope: Scope, visitor: Visitor, reply: Reply) -> None:
        body = await visitor.body(scope["headers"])
        reply.restart_clock()
        order = await self._decide(scope["path"], body)
        entry = order.entry
        reply.served = entry.served
        _demand_ready(entry)
        await self._admission.enter(entry)
        reply.queue_s = reply.age_s
        try:
            whole = await self._consult(order, reply)
        finally:
            self._admission.leave(entry)
        if whole is not None:
            await reply.whole(whole)

    async def _decide(self, path: str, body: bytes) -> Order:
        if len(body) > HEAVY_BYTES:
            async with self._heavy:
                values = await asyncio.to_thread(document.read, body)
        else:
            values = document.read(body)
        return proxy.decide(path, body, values, self._board)

    async def _consult(self, order: Order, reply: Reply) -> bytes | None:
        """The engine's whole answer, or None where it was streamed. Raises Refusal."""
        _demand_ready(order.entry)  # it may have died while we were in line
        try:
            if order.as_stream and (whole := await self._exchange(order, order.as_stream, reply)):
                return whole
            return await self._exchange(order, order.body, reply)
        except UpstreamError as error:
            raise _refusal(error) from None

    async def _exchange(self, order: Order, body: bytes, reply: Reply) -> bytes | None:
        exchange, first = await self._ask(order, body, reply)
        try:
            return await self._pass_on(order, exchange, first, reply)
        finally:
            exchange.close()

    async def _ask(self, order: Order, body: bytes, reply: Reply) -> tuple[Exchange, bytes]:
        """The engine's first bytes; asked again, once, where it broke off before them."""
        message = upstream.request(order.path, body, reply.request_id)
        try:
            return await self._first(order.entry, message)
        except (ConnectFailed, Died):
            _demand_ready(order.entry)
            return await self._first(order.entry, message)

    async def _first(self, entry: Entry, message: bytes) -> tuple[Exchange, bytes]:
        exchange = await upstream.send(entry.served.socket, message, self._patience)
        try:
            return exchange, await exchange.read()
        except BaseException:
            exchange.close()
            raise

    async def _pass_on(self, order: Order, exchange: Exchange, first: bytes, reply: Reply) -> bytes | None:
        """The whole answer, which the client may take its time to read, or None.

        None says that it has been streamed, or, to an order ``as_stream``, that the events did not tell all of it.
        """
        if exchange.status == 200 and exchange.content_type == b"text/event-stream":
            if order.as_stream:
                return await self._assembled(order.entry, exchange, first, reply)
            if order.stream:
                await self._streamed(order, exchange, first, reply)
                return None
        reply.first_byte()
        if exchange.status >= 400:
            raise answers.refusal(exchange.status, await _collect(exchange, first, MAX_COMPLAINT_BYTES))
        if order.stream or exchange.status != 200 or exchange.content_type != b"application/json":
            raise nonsense()
        body = await _collect(exchange, first, MAX_ANSWER_BYTES)
        reply.tokens = _tokens(answers.usage(body), 0)
        return body

    async def _streamed(self, order: Order, exchange: Exchange, first: bytes, reply: Reply) -> None:
        stream = Stream(hide_usage=order.hide_usage)
        try:
            await _follow(order.entry, exchange, first, stream, reply.event)
            await reply.end()
        finally:
            reply.tokens = _tokens(stream.usage, stream.events)

    async def _assembled(self, entry: Entry, exchange: Exchange, first: bytes, reply: Reply) -> bytes | None:
        assembly = Assembly()

        async def take(events: bytes) -> None:
            reply.first_byte()
            assembly.add(events)

        await _follow(entry, exchange, first, Stream(hide_usage=False), take)
        whole = assembly.whole()
        if whole is not None:
            reply.tokens = _tokens(answers.usage(whole), 0)
        return whole


async def _follow(entry: Entry, exchange: Exchange, data: bytes, stream: Stream, take: Take) -> None:
    """Give ``take`` what ``stream`` lets pass until that has ended well. Raises Refusal where it does not."""
    while data:
        entry.heard_s = time.monotonic()
        if events := stream.feed(data):
            await take(events)
        if stream.refusal:
            raise stream.refusal
        if stream.ended:
            return
        data = await exchange.read()
    raise died()


async def _collect(exchange: Exchange, first: bytes, limit_bytes: int) -> bytes:
    body = bytearray(first)
    while data := await exchange.read():
        body += data
        if len(body) > limit_bytes:
            raise Nonsense(f"an answer beyond {limit_bytes} bytes")
    return bytes(body)


def _demand_ready(entry: Entry) -> None:
    if entry.state is not State.READY:
        raise unavailable(f"the model `{entry.served.name}` is not ready: its engine is {entry.state.value}")


def _tokens(usage: answers.Usage | None, events: int) -> Tokens:
    if usage is None or usage.completion_tokens is None:
        return Tokens(completion=events, reported=False)
    return Tokens(prompt=usage.prompt_tokens or 0, cached=usage.cached_tokens or 0, completion=usage.completion_tokens)


def _refusal(error: UpstreamError) -> Refusal:
    match error:
        case ConnectFailed():
            return unavailable("the engine cannot be reached", code="engine_unreachable")
        case Died():
            return died()
        case Silent():
            return silent()
        case _:
            return nonsense()
