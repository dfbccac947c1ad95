"""An endpoint whose truth is known: every answer is a script of packets at stated offsets.

The harness measures itself against it before each run (``python -m benchmarks.mock`` in a process of its own), and
the tests send the streams that other harnesses get wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable

import msgspec
from aiohttp import web

MODEL = "mock"
TTFT_MS = 20.0
TPOT_MS = 10.0
PROMPT_TOKENS = 7


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """One answer. A packet is (seconds after the request was read, bytes), written and flushed on its own."""

    status: int = 200
    content_type: str = "text/event-stream"
    headers: dict[str, str] = {}
    packets: tuple[tuple[float, bytes], ...]
    cut: bool = False
    """End by aborting the connection instead of closing the answer."""


class Ask(msgspec.Struct):
    """What the mock reads of a request."""

    max_tokens: int = 16


def event(value: object) -> bytes:
    """One SSE event with this value as JSON."""
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


def token(text: str = "word ") -> bytes:
    """One event that bears text."""
    return event({"choices": [{"index": 0, "delta": {"content": text}}]})


def ending(output_tokens: int, *, finish_reason: str = "length") -> bytes:
    """Finish reason, usage and [DONE] in one packet."""
    usage = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": output_tokens}
    finish = event({"choices": [{"index": 0, "delta": {}, "finish_reason": finish_reason}]})
    return finish + event({"choices": [], "usage": usage}) + b"data: [DONE]\n\n"


def steady(ask: Ask) -> Reply:
    """A role event at once, then one token per chunk: the first at TTFT_MS, the others TPOT_MS apart."""
    role = (0.0, event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}))
    tokens = tuple(((TTFT_MS + TPOT_MS * place) / 1000, token()) for place in range(ask.max_tokens))
    return Reply(packets=(role, *tokens, (tokens[-1][0], ending(ask.max_tokens))))


@contextlib.asynccontextmanager
async def serving(answer: Callable[[Ask], Reply], *, models: tuple[str, ...] = (MODEL,)) -> AsyncIterator[str]:
    """The base URL of a server on a free loopback port, for as long as the block runs."""

    async def chat(request: web.Request) -> web.StreamResponse:
        arrived_s = asyncio.get_running_loop().time()
        reply = answer(msgspec.json.decode(await request.read(), type=Ask))
        return await _play(request, reply, arrived_s)

    async def list_models(_: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": model, "object": "model"} for model in models]})

    app = web.Application(client_max_size=1 << 26)
    app.add_routes([web.post("/v1/chat/completions", chat), web.get("/v1/models", list_models)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


async def _play(request: web.Request, reply: Reply, arrived_s: float) -> web.StreamResponse:
    response = web.StreamResponse(status=reply.status, headers={"content-type": reply.content_type, **reply.headers})
    await response.prepare(request)
    loop = asyncio.get_running_loop()
    for offset_s, packet in reply.packets:
        # Against the arrival and not the packet before, so that lateness does not add up.
        await asyncio.sleep(max(0.0, arrived_s + offset_s - loop.time()))
        await response.write(packet)
    if reply.cut and request.transport is not None:
        request.transport.abort()
    await response.write_eof()
    return response


async def _until_stdin_ends() -> None:
    """Print the base URL, serve, and end with the parent: its end of the pipe closes however it dies."""
    async with serving(steady) as base_url:
        print(base_url, flush=True)
        await asyncio.to_thread(sys.stdin.buffer.read)


if __name__ == "__main__":
    asyncio.run(_until_stdin_ends())
