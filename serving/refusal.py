"""A request that is not answered: status, words and the shape OpenAI's clients expect.

400 body or parameter   401 key            404 model or path   405 method      408 slow body
413 body too large      415 encoded body   429 queue full      431 headers
502 engine nonsense     503 no engine      504 engine silent
"""

from __future__ import annotations

import msgspec

RETRY_AFTER_S = 2
"""How soon a refused client may come back: a slot or a restarted engine is a matter of seconds."""

_TYPES = {401: "authentication_error", 429: "rate_limit_error", 502: "engine_error", 503: "engine_unavailable"}


class Refusal(Exception):
    """Raised wherever a request ends without an answer; sent by whoever holds the connection."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str | None = None,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type or _TYPES.get(status, "invalid_request_error")
        self.code = code
        self.param = param
        self.retry_after_s = retry_after_s

    @property
    def body(self) -> bytes:
        """``{"error": {message, type, param, code}}``."""
        fields = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return msgspec.json.encode({"error": fields})

    @property
    def event(self) -> bytes:
        """The same as the last event of a stream that had begun."""
        return b"data: " + self.body + b"\n\n"


def invalid(message: str, *, param: str | None = None, code: str | None = None) -> Refusal:
    """400: the client's to mend."""
    return Refusal(400, message, param=param, code=code)


def overflow(prompt_tokens: int | None, window_tokens: int) -> Refusal:
    """400 ``context_length_exceeded``, in the words that clients look for, with both numbers."""
    prompt = "more" if prompt_tokens is None else f"{prompt_tokens} tokens"
    return Refusal(
        400,
        f"This model's maximum context length is {window_tokens} tokens, but the prompt has {prompt}",
        code="context_length_exceeded",
    )


def unavailable(message: str, *, code: str = "model_not_ready") -> Refusal:
    """503: nothing that the client could change; it may try again."""
    return Refusal(503, message, code=code, retry_after_s=RETRY_AFTER_S)


def died() -> Refusal:
    """503: the engine ended before its answer did."""
    return Refusal(
        503,
        "the engine died before it finished the answer",
        type="engine_died",
        code="engine_died",
        retry_after_s=RETRY_AFTER_S,
    )


def nonsense() -> Refusal:
    """502: the engine said something that is no answer."""
    return Refusal(502, "the engine gave no usable answer", code="engine_nonsense")


def silent() -> Refusal:
    """504: the engine missed a deadline."""
    return Refusal(504, "the engine did not answer in time", type="engine_timeout", code="engine_timeout")
