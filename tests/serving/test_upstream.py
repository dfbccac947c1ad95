"""One exchange with an engine, byte by byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop

from serving import upstream
from serving.upstream import ConnectFailed, Died, Exchange, Nonsense, Patience, Silent

Act = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json; charset=utf-8\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"


@asynccontextmanager
async def exchange(folder: Path, act: Act, patience: Patience | None = None) -> AsyncIterator[Exchange]:
    """With an engine that plays ``act`` on the one connection."""
    path = str(folder / "e.sock")

    async def engine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await act(reader, writer)
        writer.close()

    async with await asyncio.start_unix_server(engine, path):
        found = await upstream.send(path, upstream.request("/v1/x", b"{}", "id-1"), patience or Patience())
        try:
            yield found
        finally:
            found.close()


def says(*parts: bytes) -> Act:
    """Each part a write of its own, after the request has come."""

    async def act(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)

    return act


def answer(folder: Path, *parts: bytes, patience: Patience | None = None) -> tuple[int, bytes, bytes]:
    async def scene() -> tuple[int, bytes, bytes]:
        async with exchange(folder, says(*parts), patience) as found:
            body = b""
            while data := await found.read():
                body += data
            return found.status, found.content_type, body

    return uvloop.run(scene())


@pytest.mark.parametrize(
    "parts",
    [
        [HEAD + b"content-length: 5\r\n\r\nhello"],
        [CHUNKED + b"5\r\nhello\r\n0\r\n\r\n"],
        [CHUNKED, b"2\r\nhe\r\n", b"3\r\nl", b"lo\r\n", b"0\r\n\r\n"],
        [bytes([byte]) for byte in CHUNKED + b"5\r\nhello\r\n0\r\n\r\n"],
        [HEAD + b"\r\nhel", b"lo"],
        [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n", HEAD + b"\r\nhello"],
        [HEAD + b"content-length: 5\r\n\r\nhelloHTTP/1.1 500 Another\r\ncontent-type: a/b\r\n\r\nmore"],
        [HEAD + b"content-length: 5\r\n\r\nhello and more"],
    ],
)
def test_framings(tmp_path: Path, parts: list[bytes]) -> None:
    assert answer(tmp_path, *parts) == (200, b"application/json", b"hello")


def test_no_body(tmp_path: Path) -> None:
    assert answer(tmp_path, b"HTTP/1.1 404 X\r\ncontent-length: 0\r\n\r\n") == (404, b"", b"")


@pytest.mark.parametrize(
    "parts",
    [[b""], [b"HTTP/1.1 200"], [HEAD + b"content-length: 5\r\n\r\nhel"], [CHUNKED + b"5\r\nhello\r\n"], [CHUNKED]],
)
def test_broken_off_is_never_whole(tmp_path: Path, parts: list[bytes]) -> None:
    with pytest.raises(Died):
        answer(tmp_path, *parts)


def test_what_came_before_the_end_is_delivered_first(tmp_path: Path) -> None:
    async def scene() -> None:
        async with exchange(tmp_path, says(CHUNKED + b"5\r\nhello\r\n")) as found:
            assert await found.read() == b"hello"
            with pytest.raises(Died):
                await found.read()

    uvloop.run(scene())


@pytest.mark.parametrize(
    "parts",
    [
        [b"SSH-2.0-x\r\n"],
        [b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000],
        [b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20_000],
        [CHUNKED + b"zz\r\nhello\r\n"],
        [b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n"],
        [b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nhello"],
    ],
)
def test_nonsense(tmp_path: Path, parts: list[bytes]) -> None:
    with pytest.raises(Nonsense):
        answer(tmp_path, *parts)


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(ConnectFailed):
        uvloop.run(upstream.send(str(tmp_path / "none.sock"), b"", Patience()))


@pytest.mark.parametrize("parts", [[], [CHUNKED + b"5\r\nhello\r\n"]])
def test_silence(tmp_path: Path, parts: list[bytes]) -> None:
    left = asyncio.Event()

    async def act(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await says(*parts)(reader, writer)
        assert await reader.read() == b""
        left.set()

    async def scene() -> None:
        async with exchange(tmp_path, act, Patience(first_byte_s=0.05, idle_s=0.05)) as found:
            if parts:
                assert await found.read() == b"hello"
            with pytest.raises(Silent):
                await found.read()
            await left.wait()

    uvloop.run(scene())


def test_request_in_one_piece_with_our_headers_only(tmp_path: Path) -> None:
    assert upstream.request("/v1/x", b"{}", "id-1") == (
        b"POST /v1/x HTTP/1.1\r\nhost: engine\r\ncontent-type: application/json\r\ncontent-length: 2\r\n"
        b"x-request-id: id-1\r\nconnection: close\r\n\r\n{}"
    )


def test_a_reader_that_waits_holds_the_engine_back(tmp_path: Path) -> None:
    """64 MB are to be sent; while nobody reads, the engine is stopped by full buffers."""
    total = 64 * 1024 * 1024
    sent = 0
    stuck = asyncio.Event()

    async def act(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"{}")
        writer.write(HEAD + b"content-length: %d\r\n\r\n" % total)
        while sent < total:
            writer.write(b"x" * 65536)
            try:
                async with asyncio.timeout(None if stuck.is_set() else 0.5):
                    await writer.drain()
            except TimeoutError:
                stuck.set()
                await writer.drain()
            sent += 65536

    async def scene() -> None:
        async with exchange(tmp_path, act) as found:
            await stuck.wait()
            assert sent < 4 * 1024 * 1024
            length = 0
            while data := await found.read():
                length += len(data)
            assert length == total

    uvloop.run(scene())


def test_closing_an_unfinished_exchange_is_seen_by_the_engine(tmp_path: Path) -> None:
    left = asyncio.Event()

    async def act(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        assert await reader.read() == b""
        left.set()

    async def scene() -> None:
        async with exchange(tmp_path, act) as found:
            found.close()
            async with asyncio.timeout(5):
                await left.wait()

    uvloop.run(scene())
