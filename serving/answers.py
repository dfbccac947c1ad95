"""What an engine said, in our words: usage for the counters, its errors without its internals."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from serving.refusal import Refusal, invalid, nonsense, overflow, unavailable

MAX_MESSAGE = 400


class PromptDetails(msgspec.Struct, frozen=True, kw_only=True):
    cached_tokens: int | None = None


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Token counts as the engine reported them; None where it did not."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: PromptDetails | None = None

    @property
    def cached_tokens(self) -> int | None:
        return self.prompt_tokens_details.cached_tokens if self.prompt_tokens_details else None


class _Whole(msgspec.Struct, frozen=True, kw_only=True):
    """A complete answer; chat and completions have choices, embeddings have data."""

    choices: list[msgspec.Raw] | None = None
    data: list[msgspec.Raw] | None = None
    usage: Usage | None = None
    error: Any = None


_WHOLE = msgspec.json.Decoder(_Whole)
# The sentences of llama.cpp b11549 and vLLM 0.32 and 0.33.
_WINDOW = re.compile(r"(?:maximum context length is|context length is only|maximum model length of)\s+(\d+)")
_PROMPT = re.compile(r"(\d+) input tokens|(\d+) in the (?:messages|prompt)|\(length (\d+)\)|requested (\d+) tokens")
_INTERNAL = re.compile(r"\[json\.exception[^\]]*\]\s*")
_REVEALING = re.compile(r"Traceback|(?:^|[\s'\"(=])/\w[\w.-]*/|\bFile \"|0x[0-9a-f]{6,}", re.IGNORECASE)


def usage(body: bytes) -> Usage | None:
    """Usage in a whole answer with status 200. Raises Refusal where it is no answer, or an error in disguise."""
    try:
        whole = _WHOLE.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise nonsense() from None
    if whole.error is not None:
        raise translate(500, whole.error)
    if whole.choices is None and whole.data is None:
        raise nonsense()
    return whole.usage


def refusal(status: int, body: bytes) -> Refusal:
    """An engine's answer with a status of 400 or more."""
    try:
        said = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        said = None
    return translate(status, said.get("error", said) if isinstance(said, dict) else None)


def translate(status: int, error: Any) -> Refusal:
    """An engine's error object, from an answer of its own or from within a stream.

    ``error`` is whatever stood there: an object with message, type and code, a string, or nothing of use.
    """
    fields = error if isinstance(error, dict) else {"message": error}
    message = fields.get("message")
    text = message if isinstance(message, str) else ""
    code = fields.get("code")
    if status >= 500 and isinstance(code, int) and 400 <= code < 600:
        status = code
    if status in (400, 413, 422):
        return _overflow(fields, text) or invalid(_presentable(text), code="engine_refused")
    if status in (404, 405, 501):
        return invalid("this model's engine does not offer that", code="unsupported")
    if status in (429, 503):
        return unavailable("the engine is busy or not ready", code="engine_busy")
    return Refusal(502, "the engine failed", code="engine_failed")


def _overflow(fields: dict[str, Any], text: str) -> Refusal | None:
    """llama.cpp names both numbers in fields of their own, vLLM in its sentence."""
    if fields.get("type") == "exceed_context_size_error" and isinstance(window := fields.get("n_ctx"), int):
        prompt = fields.get("n_prompt_tokens")
        return overflow(prompt if isinstance(prompt, int) else None, window)
    if found := _WINDOW.search(text):
        asked = _PROMPT.search(text)
        return overflow(int(next(filter(None, asked.groups()))) if asked else None, int(found.group(1)))
    return None


def _presentable(text: str) -> str:
    """The first line of a complaint about the request; nothing that shows paths or code."""
    line = _INTERNAL.sub("", text.strip().partition("\n")[0])[:MAX_MESSAGE]
    return line if line and not _REVEALING.search(line) else "the engine refused the request"
