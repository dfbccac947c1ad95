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


class Script(msgspec.Struct, frozen=True, kw_only=True):
    """What to do with one request. Chunks are counted from 1; 0 means never."""

    chunks: int = 4
    """Tokens of the answer."""
    interval_s: float = 0.0
    """Before each chunk of a stream, and before an answer in one piece."""
    hold: bool = False
    """Never answer."""
    stall_after: int = 0
    """Go silent after this chunk, with the connection open."""
    cut_after: int = 0
    """Close the connection after this chunk."""
    die_after: int = 0
    """Kill the whole process after this chunk."""
    drops: int = 0
    """Close this many connections that carry the same request id, before a byte is answered."""
    answer: str = "right"
    """Or a name in ``_WRONG``."""
    usage: bool = True
    """Report usage where it is asked for."""
    finish: bool = True
    """Give a finish reason."""
    done: int = 1
    """How often to send [DONE]."""
    error_after: int = 0
    """As vLLM does when its core dies: an error event after this chunk, then [DONE]."""
    split: bool = False
    """Cut each event in two writes, with a pause between them."""
    line_bytes: int = 0
    """A line of this length that never ends, in place of the stream."""
    pad_bytes: int = 0
    """Extra bytes in each chunk."""


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
            self._json(200, {"/stats": self._engine.seen, "/health": {"status": "ok"}}.get(path, _MODELS))
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
            self._transport.write(_WRONG[script.answer])
            self._transport.close()
        elif body.get("stream"):
            await self._stream(script, path, body)
        else:
            await asyncio.sleep(script.interval_s)
            self._json(200, _whole(path, body["model"], script))

    async def _stream(self, script: Script, path: str, body: dict[str, Any]) -> None:
        self._transport.write(_head(200, "text/event-stream", "transfer-encoding: chunked"))
        if script.line_bytes:
            await self._endless(script.line_bytes)
        for number in range(1, script.chunks + 1):
            if script.interval_s:
                await asyncio.sleep(script.interval_s)
            await self._event(_delta(path, body["model"], f"t{number} " + "x" * script.pad_bytes, None), script)
            await self._misfortune(script, number)
        reason = "stop" if script.finish else None
        await self._event(_delta(path, body["model"], "", reason), script)
        if script.usage and (body.get("stream_options") or {}).get("include_usage"):
            await self._event({"choices": [], "model": body["model"], "usage": _usage(script)}, script)
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
        self._transport.write(_head(status, "application/json", f"content-length: {len(body)}") + body)
        if self._headers.get("connection") == "close":
            self._transport.close()


def _head(status: int, kind: str, *more: str) -> bytes:
    lines = (f"HTTP/1.1 {status} X", "server: fake", f"content-type: {kind}", "set-cookie: secret=1", *more)
    return "\r\n".join((*lines, "", "")).encode()


def _wrong(status: int, body: bytes, kind: str = "application/json") -> bytes:
    return _head(status, kind, f"content-length: {len(body)}", "location: /elsewhere") + body


_MODELS = {"object": "list", "data": [{"id": "fake", "object": "model"}]}
_RIGHT = b'{"choices":[{"index":0,"message":{"role":"assistant","content":"t1"},"finish_reason":"stop"}]}'
_WRONG = {
    "html": _wrong(200, b"<h1>It works</h1>", "text/html"),
    "redirect": _wrong(307, b"{}"),
    "early": b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + _wrong(200, _RIGHT),
    "error": _wrong(200, b'{"error":{"message":"Traceback in /srv/x.py","code":500}}'),
    "garbage": b"SSH-2.0-OpenSSH_9.2\r\n",
    "llamacpp-overflow": _wrong(
        400,
        b'{"error":{"code":400,"message":"request (3030 tokens) exceeds the available context size (1024 tokens), '
        b'try increasing it","type":"exceed_context_size_error","n_prompt_tokens":3030,"n_ctx":1024}}',
    ),
    "vllm-overflow": _wrong(
        400,
        b'{"error":{"message":"This model\'s maximum context length is 1024 tokens. However, you requested 10 output '
        b'tokens and your prompt contains at least 1015 input tokens","type":"BadRequestError","code":400}}',
    ),
    "crash": _wrong(500, b'{"error":{"message":"Traceback: /srv/engine.py line 7","code":500}}'),
}


def _usage(script: Script) -> dict[str, Any]:
    return {
        "prompt_tokens": 7,
        "completion_tokens": script.chunks,
        "total_tokens": 7 + script.chunks,
        "prompt_tokens_details": {"cached_tokens": 3},
    }


def _delta(path: str, model: str, text: str, reason: str | None) -> dict[str, Any]:
    said = {"delta": {"content": text}} if path.endswith("chat/completions") else {"text": text}
    return {"id": "fake-1", "model": model, "choices": [{"index": 0, **said, "finish_reason": reason}]}


def _whole(path: str, model: str, script: Script) -> dict[str, Any]:
    text = "".join(f"t{number} " for number in range(1, script.chunks + 1))
    answer: dict[str, Any] = {"id": "fake-1", "object": "chat.completion", "created": 0, "model": model}
    if path.endswith("embeddings"):
        answer |= {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [0.5, -0.5]}]}
    elif path.endswith("chat/completions"):
        message = {"role": "assistant", "content": text}
        answer["choices"] = [{"index": 0, "message": message, "finish_reason": "stop"}]
    else:
        answer["choices"] = [{"index": 0, "text": text, "finish_reason": "stop"}]
    return answer | ({"usage": _usage(script)} if script.usage else {})


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
