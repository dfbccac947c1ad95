"""What one request tells: its stamps, its usage, how it ended, and the metrics that follow. Pure.

Stamps are nanoseconds of one monotonic clock (``perf_counter_ns``). Definitions, as in docs/measuring.md:

    TTFT  first token-bearing chunk - request sent; a role, an empty delta, usage or a comment bears no token
    TTFA  the same to the first token that is not reasoning
    TPOT  (last - first token-bearing chunk) / (O - k₁); undefined, hence left out, when O ≤ k₁
    ICL   the gaps between token-bearing chunks: what a reader sees stall. A chunk is not a token
    E2EL  last token-bearing chunk - request sent

O is the server's ``usage.completion_tokens`` and k₁ the tokens of the first chunk: what the server counts there,
all of them when one chunk is the whole answer, else 1. Text is never tokenised again to guess a count.
"""

from __future__ import annotations

from enum import StrEnum
from itertools import pairwise

import msgspec

NS_PER_MS = 1e6


class Outcome(StrEnum):
    """How a request ended. All but OK are failures, and failures are misses."""

    OK = "ok"
    HTTP = "http error"
    ERROR_EVENT = "error event"
    MALFORMED = "malformed stream"
    CUT = "stream cut before [DONE]"
    EMPTY = "no token came"
    CONNECTION = "connection failed"
    TIMEOUT = "timed out"


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """The server's own count. ``cached_tokens`` and ``reasoning_tokens``: None where it does not say."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One finished request. In a closed loop ``t_sched_ns`` is when its place became free."""

    t_sched_ns: int
    t_send_ns: int
    t_headers_ns: int | None = None
    t_answer_ns: int | None = None
    """First token that is not reasoning."""
    chunks_ns: tuple[int, ...] = ()
    """Arrivals of the token-bearing chunks."""
    t_done_ns: int
    first_tokens: int | None = None
    """Tokens in the first chunk, where the server counts as it streams."""
    usage: Usage | None = None
    finish_reason: str | None = None
    outcome: Outcome
    detail: str | None = None
    resent: int = 0
    """How often a kept connection was found closed and the request went out once more."""

    @property
    def ok(self) -> bool:
        return self.outcome is Outcome.OK

    @property
    def ttft_ms(self) -> float | None:
        return (self.chunks_ns[0] - self.t_send_ns) / NS_PER_MS if self.chunks_ns else None

    @property
    def ttfa_ms(self) -> float | None:
        return None if self.t_answer_ns is None else (self.t_answer_ns - self.t_send_ns) / NS_PER_MS

    @property
    def e2el_ms(self) -> float | None:
        return (self.chunks_ns[-1] - self.t_send_ns) / NS_PER_MS if self.chunks_ns else None

    @property
    def dispatch_ms(self) -> float:
        """How late the harness itself was."""
        return (self.t_send_ns - self.t_sched_ns) / NS_PER_MS

    @property
    def gaps_ms(self) -> list[float]:
        return [(after - before) / NS_PER_MS for before, after in pairwise(self.chunks_ns)]

    @property
    def tpot_ms(self) -> float | None:
        rest = self._tokens_after_first
        return (self.chunks_ns[-1] - self.chunks_ns[0]) / NS_PER_MS / rest if rest else None

    def tokens_between(self, start_ns: int, end_ns: int) -> float | None:
        """Tokens that came in (start, end]: the first chunk's, and an equal share of the rest for every later one."""
        if self.usage is None or not self.chunks_ns:
            return None
        rest = self._tokens_after_first or 0
        share = rest / (len(self.chunks_ns) - 1) if rest else 0.0
        first = self.usage.completion_tokens - rest
        inside = [start_ns < stamp <= end_ns for stamp in self.chunks_ns]
        return first * inside[0] + share * sum(inside[1:])

    @property
    def _tokens_after_first(self) -> int | None:
        """O - k₁ where TPOT is defined."""
        if self.usage is None or len(self.chunks_ns) < 2:
            return None
        rest = self.usage.completion_tokens - (self.first_tokens or 1)
        return rest if rest > 0 else None


class _Function(msgspec.Struct):
    arguments: str | None = None


class _ToolCall(msgspec.Struct):
    function: _Function | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    text: str | None = None
    finish_reason: str | None = None

    @property
    def answers(self) -> bool:
        """Carries a token of the answer itself."""
        delta = self.delta or _Delta()
        calls = [call.function.arguments for call in delta.tool_calls or () if call.function]
        return bool(self.text or delta.content or any(calls))

    @property
    def reasons(self) -> bool:
        return self.delta is not None and bool(self.delta.reasoning_content or self.delta.reasoning)


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class _CompletionDetails(msgspec.Struct):
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: object = None


_CHUNK = msgspec.json.Decoder(_Chunk)


class Recorder:
    """Collects one request's events and closes them into a Record."""

    def __init__(self, *, t_sched_ns: int, t_send_ns: int) -> None:
        self._t_sched_ns, self._t_send_ns = t_sched_ns, t_send_ns
        self._t_headers_ns: int | None = None
        self._t_answer_ns: int | None = None
        self._chunks_ns: list[int] = []
        self._first_tokens: int | None = None
        self._usage: Usage | None = None
        self._finish_reason: str | None = None
        self._fault: tuple[Outcome, str] | None = None
        self.done = False
        """``[DONE]`` has come."""
        self.resent = 0

    def headers(self, now_ns: int) -> None:
        self._t_headers_ns = now_ns

    def feed(self, now_ns: int, payload: bytes) -> None:
        """One event's data. A payload that is no chunk becomes the request's fault, not an exception."""
        if payload == b"[DONE]":
            self.done = True
            return
        try:
            chunk = _CHUNK.decode(payload)
        except msgspec.DecodeError as error:
            self._fault = self._fault or (Outcome.MALFORMED, str(error))
            return
        if chunk.error:
            self._fault = self._fault or (Outcome.ERROR_EVENT, str(chunk.error)[:200])
        self._count(chunk.usage)
        self._stamp(now_ns, chunk)

    def close(self, now_ns: int, outcome: Outcome = Outcome.OK, detail: str | None = None) -> Record:
        """The record. A clean end is still judged: by its events, by ``[DONE]`` and by there being a token."""
        if outcome is Outcome.OK:
            outcome, detail = self._fault or (self._judged(), None)
        return Record(
            t_sched_ns=self._t_sched_ns,
            t_send_ns=self._t_send_ns,
            t_headers_ns=self._t_headers_ns,
            t_answer_ns=self._t_answer_ns,
            chunks_ns=tuple(self._chunks_ns),
            t_done_ns=now_ns,
            first_tokens=self._first_tokens,
            usage=self._usage,
            finish_reason=self._finish_reason,
            outcome=outcome,
            detail=detail,
            resent=self.resent,
        )

    def _judged(self) -> Outcome:
        if not self.done:
            return Outcome.CUT
        return Outcome.OK if self._chunks_ns else Outcome.EMPTY

    def _count(self, usage: _Usage | None) -> None:
        # Ollama's /v1/completions sends usage 0, 0, 0 on every chunk: the last one that counts something is it.
        if usage is None or usage.prompt_tokens is None or usage.completion_tokens is None:
            return
        if not (usage.prompt_tokens or usage.completion_tokens):
            return
        prompt, completion = usage.prompt_tokens_details, usage.completion_tokens_details
        self._usage = Usage(
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            cached_tokens=prompt.cached_tokens if prompt else None,
            reasoning_tokens=completion.reasoning_tokens if completion else None,
        )

    def _stamp(self, now_ns: int, chunk: _Chunk) -> None:
        choices = chunk.choices or ()
        answers = any(choice.answers for choice in choices)
        if answers or any(choice.reasons for choice in choices):
            self._chunks_ns.append(now_ns)
            if len(self._chunks_ns) == 1 and chunk.usage and chunk.usage.completion_tokens:
                self._first_tokens = chunk.usage.completion_tokens
        if answers and self._t_answer_ns is None:
            self._t_answer_ns = now_ns
        for choice in choices:
            self._finish_reason = choice.finish_reason or self._finish_reason
