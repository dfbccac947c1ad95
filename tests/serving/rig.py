"""A gateway on loopback over a fake engine, and a client that speaks HTTP by hand: it can stop in the middle."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
import uvloop

from serving import gateway
from serving.board import Board, Entry, Served, State
from serving.engines import fake
from serving.keys import Keyring
from serving.upstream import Patience
from serving.visitor import Limits

KEY = "sk-ow-test"
LIMIT_S = 20.0
LEAVES_WITHIN_S = 3.0
"""The promise is 0.2 s, on a machine that is not busy with tests; without the promise it would be never."""
CHAT = "/v1/chat/completions"


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes = b""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error object; only that, in OpenAI's shape."""
        (found,) = self.json.values()
        assert set(found) == {"message", "type", "param", "code"}
        return dict(found)

    @property
    def events(self) -> list[Any]:
        """The events of a stream; [DONE] as that word."""
        *events, rest = self.body.decode().split("\n\n")
        assert rest == ""
        data = [event.removeprefix("data: ") for event in events if event.startswith("data: ")]
        return [item if item == "[DONE]" else json.loads(item) for item in data]


class Conversation:
    """One connection to the gateway."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def head(self) -> Answer:
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines[1:-2])
        return Answer(int(lines[0].split()[1]), headers)

    async def chunk(self) -> bytes:
        """The next chunk of a chunked body; b"" at its end."""
        size = int(await self.reader.readline(), 16)
        return (await self.reader.readexactly(size + 2))[:-2]

    async def answer(self) -> Answer:
        answer = await self.head()
        if "content-length" in answer.headers:
            answer.body = await self.reader.readexactly(int(answer.headers["content-length"]))
        else:
            while chunk := await self.chunk():
                answer.body += chunk
        return answer

    async def leave(self) -> None:
        self.writer.transport.abort()


@dataclass
class Rig:
    """What a test holds on to."""

    board: Board
    entry: Entry
    socket: Path
    port: int = 0
    engine: asyncio.subprocess.Process | None = None
    server: uvicorn.Server | None = None
    conversations: list[Conversation] = field(default_factory=list)

    async def open(self, raw: bytes = b"") -> Conversation:
        conversation = Conversation(*await asyncio.open_connection("127.0.0.1", self.port))
        self.conversations.append(conversation)
        conversation.writer.write(raw)
        await conversation.writer.drain()
        return conversation

    async def say(self, path: str = CHAT, script: str = "", **fields: Any) -> Conversation:
        """Send a request for the fake engine to play ``script``; the answer is still to be read."""
        return await self.open(post(path, body(path, script, **fields)))

    async def ask(self, path: str = CHAT, script: str = "", **fields: Any) -> Answer:
        return await (await self.say(path, script, **fields)).answer()

    async def get(self, path: str, *, key: str | None = KEY) -> Answer:
        return await (await self.open(request("GET", path, key=key))).answer()

    async def stats(self) -> dict[str, Any]:
        """The engine's own account of its requests."""
        conversation = Conversation(*await asyncio.open_unix_connection(str(self.socket)))
        conversation.writer.write(b"GET /stats HTTP/1.1\r\nhost: e\r\nconnection: close\r\n\r\n")
        answer = await conversation.answer()
        await conversation.leave()
        return dict(answer.json)

    async def engine_reaches(self, within_s: float = LIMIT_S, **wanted: int) -> None:
        """Asks the engine until its counts are those."""
        async with asyncio.timeout(within_s):
            while {name: (await self.stats())[name] for name in wanted} != wanted:
                await asyncio.sleep(0.005)

    async def until(self, condition: Callable[[], bool], within_s: float = LIMIT_S) -> None:
        async with asyncio.timeout(within_s):
            while not condition():
                await asyncio.sleep(0.001)

    async def metrics(self) -> list[str]:
        return (await self.get("/metrics")).body.decode().splitlines()


def request(method: str, path: str, payload: bytes = b"", *, key: str | None = KEY, headers: str = "") -> bytes:
    credential = f"authorization: Bearer {key}\r\n" if key is not None else ""
    length = f"content-length: {len(payload)}\r\n" if payload else ""
    return f"{method} {path} HTTP/1.1\r\nhost: gateway\r\n{credential}{length}{headers}\r\n".encode() + payload


def post(path: str, payload: bytes, *, headers: str = "") -> bytes:
    return request("POST", path, payload, headers=headers)


def body(path: str = CHAT, script: str = "", **fields: Any) -> bytes:
    prompts = {CHAT: {"messages": [{"role": "user", "content": "hello"}]}, "/v1/embeddings": {"input": "hello"}}
    document = {"model": "chat", **prompts.get(path, {"prompt": "hello"}), "user": script, **fields}
    return json.dumps(document).encode()


@asynccontextmanager
async def running(
    folder: Path,
    *,
    mortal: bool = False,
    slots: int = 2,
    cancels_whole_answers: bool = True,
    limits: Limits | None = None,
    patience: Patience | None = None,
) -> AsyncIterator[Rig]:
    """The whole chain; the engine in a process of its own where it is to be killed. Nothing is left at the end."""
    board = Board()
    path = folder / "engine.sock"
    served = Served(
        name="chat",
        aliases=("gpt-4", "org/chat"),
        socket=str(path),
        revision="r1",
        engine="fake 1",
        lock="0123456789ab",
        context_tokens=1024,
        slots=slots,
        created=1,
        cancels_whole_answers=cancels_whole_answers,
    )
    rig = Rig(board, board.put(served), path)
    rig.entry.state = State.READY
    app = gateway.create_app(board, Keyring([KEY]), limits=limits, patience=patience)
    rig.server = uvicorn.Server(gateway.uvicorn_config(app, graceful_s=1))
    listener = socket.create_server(("127.0.0.1", 0))
    rig.port = listener.getsockname()[1]
    serving = asyncio.create_task(rig.server.serve(sockets=[listener]))
    try:
        async with mortal_engine(rig) if mortal else immortal_engine(rig):
            try:
                yield rig
            finally:
                for conversation in rig.conversations:
                    await conversation.leave()
    finally:
        rig.server.should_exit = True
        await serving


@asynccontextmanager
async def mortal_engine(rig: Rig) -> AsyncIterator[None]:
    rig.engine = await start_engine(rig.socket)
    try:
        yield
    finally:
        if rig.engine.returncode is None:
            rig.engine.kill()
        await rig.engine.communicate()


@asynccontextmanager
async def immortal_engine(rig: Rig) -> AsyncIterator[None]:
    serving = asyncio.create_task(fake.serve(rig.socket, ""))
    await rig.until(rig.socket.exists)
    try:
        yield
    finally:
        serving.cancel()


async def start_engine(path: Path) -> asyncio.subprocess.Process:
    command = (sys.executable, "-m", "serving.engines.fake", "--socket", str(path))
    engine = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert engine.stdout
    assert await engine.stdout.readline() == b"listening\n"
    return engine


def play(scene: Callable[[Rig], Coroutine[Any, Any, None]], folder: Path, **options: Any) -> None:
    """Run a scene on the loop that the product runs on."""

    async def whole() -> None:
        async with asyncio.timeout(60), running(folder, **options) as rig:
            await scene(rig)

    uvloop.run(whole())
