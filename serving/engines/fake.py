"""An engine that only pretends: it exists to go wrong on request, and to be a target for load.

    python -m serving.engines.fake --socket PATH [--script "chunks=8 interval_s=0.01"]

Speaks HTTP over a unix socket: POST to the three inference paths, GET /health, /v1/models and /stats. What it does
with a request is a script: words ``knob=value`` in the body's ``user`` field, over those of ``--script``.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any, cast

import httptools
import msgspec
import uvloop

from serving.engines.fake_script import MODELS, WRONG, Script, delta, head, timings, usage, whole


class Seen(msgspec.Struct, kw_only=True):
    """GET /stats: what the engine has lived through."""

    active: int = 0
    aborted: int = 0
    """Left by the client before they were complete."""
    done: int = 0
    sent_bytes: int = 0
    """Of streams, as far as the client's buffers took them."""
    headers: dict[str, str] = {}
    """Of the latest request; so are ``path`` and ``body``."""
    path: str = ""
    body: str = ""


class Engine:
    """What all connections share."""

    def __init__(self, script: str) -> None:
        self.script = script
        self.seen = Seen()
        self.drops: Counter[str] = Counter()
        """Connections dropped so far, by request id."""

    def script_for(self, body: dict[str, Any]) -> Script:
        words = f"{self.script} {body.get('user') or ''}".split()
        return msgspec.convert(dict(word.split("=", 1) for word in words), Script, strict=False)


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._parser = httptools.HttpRequestParser(self)
        self._task: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, _error: Exception | None) -> None:
        if self._task:
            self._task.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def on_message_begin(self) -> None:
        self._path = b""
        self._headers: dict[str, str] = {}
        self._body = bytearray()

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode().lower()] = value.decode()

    def on_body(self, data: bytes) -> None:
        self._body += data

    def on_message_complete(self) -> None:
        path = self._path.decode()
        if self._parser.get_method() == b"GET":
            self._json(200, {"/stats": self._engine.seen, "/health": {"status": "ok"}}.get(path, MODELS))
            return
        seen = self._engine.seen
        seen.path, seen.headers, seen.body = path, self._headers, self._body.decode()
        self._task = asyncio.create_task(self._generate(path, msgspec.json.decode(self._body)))

    async def _generate(self, path: str, body: dict[str, Any]) -> None:
        seen = self._engine.seen
        seen.active += 1
        try:
            await self._play(self._engine.script_for(body), path, body)
            seen.done += 1
        except asyncio.CancelledError:
            seen.aborted += 1
        finally:
            seen.active -= 1
            self._task = None

    async def _play(self, script: Script, path: str, body: dict[str, Any]) -> None:
        request_id = self._headers.get("x-request-id", "")
        if self._engine.drops[request_id] < script.drops:
            self._engine.drops[request_id] += 1
            self._transport.abort()
        elif script.hold:
            await asyncio.Event().wait()
        elif script.answer != "right":
            self._transport.write(WRONG[script.answer])
            self._transport.close()
        elif body.get("stream"):
            await self._stream(script, path, body)
        else:
            await asyncio.sleep(script.interval_s)
            self._json(200, whole(path, body["model"], script))

    async def _stream(self, script: Script, path: str, body: dict[str, Any]) -> None:
        self._transport.write(head(200, "text/event-stream", "transfer-encoding: chunked"))
        if script.line_bytes:
            await self._endless(script.line_bytes)
        for number in range(1, script.chunks - script.kept + 1):
            if script.interval_s:
                await asyncio.sleep(script.interval_s)
            event = delta(path, body["model"], f"t{number} " + "x" * script.pad_bytes, None)
            await self._event(event | timings(body, number), script)
            await self._misfortune(script, number)
        last = delta(path, body["model"], "", script.reason if script.finish else None)
        await self._event(last | timings(body, script.chunks), script)
        if script.usage and (body.get("stream_options") or {}).get("include_usage"):
            await self._event(last | {"choices": [], "usage": usage(script)}, script)
        for _ in range(script.done):
            await self._event("[DONE]", script)
        self._transport.write(b"0\r\n\r\n")
        self._transport.close()

    async def _misfortune(self, script: Script, number: int) -> None:
        if number == script.die_after:
            await asyncio.sleep(0.05)  # lets what was written reach the other side
            os.kill(os.getpid(), signal.SIGKILL)
        if number == script.cut_after:
            self._transport.close()
            await asyncio.Event().wait()
        if number == script.stall_after:
            await asyncio.Event().wait()
        if number == script.error_after:
            await self._event({"error": {"message": "EngineCore died, see /var/log/x", "code": 500}}, script)
            await self._event("[DONE]", script)

    async def _endless(self, size: int) -> None:
        self._chunk(b"data: ")
        for _ in range(size // 65536):
            self._chunk(b"x" * 65536)
            await self._writable.wait()
            await asyncio.sleep(0)

    async def _event(self, event: object, script: Script) -> None:
        data = b"data: " + (event.encode() if isinstance(event, str) else msgspec.json.encode(event)) + b"\n\n"
        if script.split:
            self._chunk(data[:11])
            await asyncio.sleep(0.01)
            data = data[11:]
        self._chunk(data)
        await self._writable.wait()
        self._engine.seen.sent_bytes += len(data)

    def _chunk(self, data: bytes) -> None:
        self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))

    def _json(self, status: int, value: object) -> None:
        body = msgspec.json.encode(value)
        self._transport.write(head(status, "application/json", f"content-length: {len(body)}") + body)
        if self._headers.get("connection") == "close":
            self._transport.close()


async def serve(path: Path, script: str) -> None:
    """Listen on ``path`` until cancelled; a socket left there by a killed one is removed."""
    engine = Engine(script)
    path.unlink(missing_ok=True)
    server = await asyncio.get_running_loop().create_unix_server(lambda: Connection(engine), str(path))
    async with server:
        print("listening", flush=True)
        await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m serving.engines.fake", description=__doc__)
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--script", default="", help="words knob=value, as in the module's docstring")
    arguments = parser.parse_args()
    uvloop.run(serve(arguments.socket, arguments.script))


if __name__ == "__main__":
    main()
