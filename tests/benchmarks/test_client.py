"""Known-answer streams over real HTTP. Lower bounds only: this box may be slow, its clock may not be early."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable

import pytest

from benchmarks.client import Client, Endpoint, connect
from benchmarks.mock import Ask, Reply, ending, event, serving, token
from benchmarks.timing import Outcome, Record
from tests.benchmarks.streams import role_event

BODY = b'{"model":"mock","max_tokens":4}'
EARLY_MS = 2.0
"""A timer of the mock may fire this much before its time: event loops count whole milliseconds."""


def asked(reply: Reply, *, times: int = 1) -> list[Record]:
    async def ask() -> list[Record]:
        async with serving(lambda _: reply) as base_url, connect(Endpoint(base_url=base_url)) as client:
            return [await client.chat(BODY) for _ in range(times)]

    return asyncio.run(ask())


def test_a_plain_stream() -> None:
    [found] = asked(Reply(packets=((0.02, token()), (0.03, token()), (0.04, token() + ending(3)))))
    assert (found.outcome, found.finish_reason, len(found.chunks_ns)) == (Outcome.OK, "length", 3)
    assert found.usage is not None
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (7, 3)
    assert found.t_send_ns < (found.t_headers_ns or 0) < found.chunks_ns[0] <= found.t_done_ns


def test_a_role_chunk_and_a_comment_at_once_do_not_make_the_first_token() -> None:
    [found] = asked(Reply(packets=((0.0, b": hold on\n\n" + role_event()), (0.1, token() + ending(1)))))
    assert found.ttft_ms is not None
    assert found.ttft_ms >= 100 - EARLY_MS


def test_reasoning_alone_makes_the_first_token() -> None:
    thought = event({"choices": [{"index": 0, "delta": {"reasoning_content": "hm"}}]})
    [found] = asked(Reply(packets=((0.0, role_event()), (0.05, thought), (0.15, token() + ending(2)))))
    assert found.ttft_ms is not None
    assert found.ttfa_ms is not None
    assert found.ttft_ms >= 50 - EARLY_MS
    assert found.ttfa_ms - found.ttft_ms >= 50


def test_an_event_cut_over_packets_is_one_chunk_at_its_end() -> None:
    whole = token()
    cut = ((0.0, whole[:9]), (0.05, whole[9:-1]), (0.1, whole[-1:] + ending(1)))
    [found] = asked(Reply(packets=cut))
    assert len(found.chunks_ns) == 1
    assert found.ttft_ms is not None
    assert found.ttft_ms >= 100 - EARLY_MS


def test_no_usage_is_uncounted_and_ok() -> None:
    [found] = asked(Reply(packets=((0.0, token()), (0.0, b"data: [DONE]\n\n"))))
    assert (found.ok, found.usage) == (True, None)


@pytest.mark.parametrize(
    ("reply", "outcome", "told"),
    [
        (Reply(packets=((0.0, token()),)), Outcome.CUT, None),
        (Reply(packets=((0.0, token()),), cut=True), Outcome.CUT, None),
        (Reply(packets=((0.0, ending(1)),)), Outcome.EMPTY, None),
        (
            Reply(status=500, content_type="application/json", packets=((0.0, b'{"error":{"message":"no memory"}}'),)),
            Outcome.HTTP,
            "HTTP 500: no memory",
        ),
        (Reply(status=503, content_type="text/plain", packets=((0.0, b"later"),)), Outcome.HTTP, "HTTP 503: later"),
        (
            Reply(content_type="application/json", packets=((0.0, b"{}"),)),
            Outcome.MALFORMED,
            "not an event stream but application/json",
        ),
    ],
)
def test_what_ends_badly_is_a_failure_by_name(reply: Reply, outcome: Outcome, told: str | None) -> None:
    [found] = asked(reply)
    assert (found.outcome, found.detail) == (outcome, told)


def test_receipts_are_kept() -> None:
    async def ask() -> dict[str, str]:
        reply = Reply(headers={"X-Ownweights-Lock": "abc", "x-other": "1"}, packets=((0.0, token() + ending(1)),))
        async with serving(lambda _: reply) as base_url, connect(Endpoint(base_url=base_url)) as client:
            await client.chat(BODY)
            return client.receipts

    assert asyncio.run(ask()) == {"lock": "abc"}


def test_nobody_there_is_a_failed_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    async def ask() -> Record:
        async with connect(Endpoint(base_url=f"http://127.0.0.1:{port}/v1")) as client:
            return await client.chat(BODY)

    assert asyncio.run(ask()).outcome is Outcome.CONNECTION


def test_a_kept_connection_that_the_server_closed_is_asked_again_and_counted() -> None:
    """llama.cpp's server announces keep-alive and closes after every stream."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: keep-alive\r\ncontent-length: %d\r\n\r\n"
    stream = token() + ending(1)

    async def answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(len(BODY))
        writer.write(head % len(stream) + stream)
        # The next request is read, and dropped without an answer.
        with contextlib.suppress(asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async def ask(client: Client) -> list[Record]:
        return [await client.chat(BODY) for _ in range(3)]

    found = asyncio.run(_against(answer_once, ask))
    assert [(record.outcome, record.resent) for record in found] == [(Outcome.OK, 0), (Outcome.OK, 1), (Outcome.OK, 1)]


def test_a_new_connection_that_is_dropped_is_not_asked_again() -> None:
    async def drop(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async def ask(client: Client) -> list[Record]:
        return [await client.chat(BODY)]

    [found] = asyncio.run(_against(drop, ask))
    assert (found.outcome, found.resent) == (Outcome.CONNECTION, 0)


def test_the_key_is_sent_and_shown_to_nobody() -> None:
    seen: list[bytes] = []

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.close()

    async def ask(client: Client) -> list[Record]:
        return [await client.chat(BODY)]

    asyncio.run(_against(note, ask, key="secret-key"))
    assert b"Bearer secret-key" in seen[0]
    assert "secret" not in repr(Endpoint(base_url="http://x/v1", key="secret-key"))


async def _against(
    handler: Callable[[asyncio.StreamReader, asyncio.StreamWriter], object],
    ask: Callable[[Client], object],
    *,
    key: str | None = None,
) -> list[Record]:
    async with _raw(handler) as base_url, connect(Endpoint(base_url=base_url, key=key)) as client:
        return await ask(client)


@contextlib.asynccontextmanager
async def _raw(handler: Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]) -> AsyncIterator[str]:
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        server.close()
        await server.wait_closed()


def test_the_mock_answers_what_was_asked_for() -> None:
    assert Ask().max_tokens == 16
