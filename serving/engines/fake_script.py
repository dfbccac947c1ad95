"""What the fake engine is told to do with one request, and what it says: right answers and wrong ones."""

from __future__ import annotations

from typing import Any

import msgspec


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
    """Or a name in ``WRONG``."""
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
    kept: int = 0
    """As llama.cpp keeps back what may become a stop word: so many chunks at the end are in no event of a stream."""

    @property
    def reason(self) -> str:
        return "length" if self.kept else "stop"


def head(status: int, kind: str, *more: str) -> bytes:
    lines = (f"HTTP/1.1 {status} X", "server: fake", f"content-type: {kind}", "set-cookie: secret=1", *more)
    return "\r\n".join((*lines, "", "")).encode()


def _wrong(status: int, body: bytes, kind: str = "application/json") -> bytes:
    return head(status, kind, f"content-length: {len(body)}", "location: /elsewhere") + body


_FIELDS = {"id": "fake-1", "created": 0}
_TEXT = "text_completion"
MODELS = {"object": "list", "data": [{"id": "fake", "object": "model"}]}
_RIGHT = b'{"choices":[{"index":0,"message":{"role":"assistant","content":"t1"},"finish_reason":"stop"}]}'
WRONG = {
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


def usage(script: Script) -> dict[str, Any]:
    return {
        "prompt_tokens": 7,
        "completion_tokens": script.chunks,
        "total_tokens": 7 + script.chunks,
        "prompt_tokens_details": {"cached_tokens": 3},
    }


def delta(path: str, model: str, text: str, reason: str | None) -> dict[str, Any]:
    kind, said = ("chat.completion.chunk", {"delta": {"content": text}}) if _is_chat(path) else (_TEXT, {"text": text})
    return {**_FIELDS, "object": kind, "model": model, "choices": [{"index": 0, **said, "finish_reason": reason}]}


def timings(body: dict[str, Any], tokens: int) -> dict[str, Any]:
    """llama.cpp's way to say at an event how many tokens there are."""
    return {"timings": {"predicted_n": tokens}} if body.get("timings_per_token") else {}


def whole(path: str, model: str, script: Script) -> dict[str, Any]:
    text = "".join(f"t{number} " for number in range(1, script.chunks + 1))
    answer: dict[str, Any] = {**_FIELDS, "model": model} | ({"usage": usage(script)} if script.usage else {})
    if path.endswith("embeddings"):
        data = [{"object": "embedding", "index": 0, "embedding": [0.5, -0.5]}]
        return answer | {"object": "list", "data": data}
    message = {"role": "assistant", "content": text}
    kind, said = ("chat.completion", {"message": message}) if _is_chat(path) else (_TEXT, {"text": text})
    return answer | {"object": kind, "choices": [{"index": 0, **said, "finish_reason": script.reason}]}


def _is_chat(path: str) -> bool:
    return path.endswith("chat/completions")
