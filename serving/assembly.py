"""A whole answer put together from the events of a streamed one, for engines that go on working on a whole answer
after its client has left.

What comes out is the engine's own whole answer, field by field. Where its stream does not tell enough for that,
the request, or in the end the answer, says so, and the engine is asked in one piece.
Source: llama.cpp b11549, both forms of several hundred answers compared.
"""

from __future__ import annotations

from typing import Any

import msgspec

from serving import sse
from serving.refusal import died, nonsense

AS_STREAM: dict[str, Any] = {
    "stream": True,
    "stream_options": {"include_usage": True},
    # How many tokens there were at each event: what shows that the last ones were kept back.
    "timings_per_token": True,
}
"""What makes a request for a whole answer one for its events."""

MAX_BYTES = 1024**3
"""Of events: a token comes in one of some 600 bytes."""

_BROKEN = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _Function(msgspec.Struct, frozen=True, kw_only=True):
    name: str = ""
    arguments: str = ""


class _Call(msgspec.Struct, frozen=True, kw_only=True):
    index: int
    id: str = ""
    function: _Function = _Function()


class _Said(msgspec.Struct, frozen=True, kw_only=True):
    index: int = 0
    delta: dict[str, str | list[_Call] | None] | None = None
    """Texts under their names; a list is of tool calls. Anything else would be lost, and is refused."""
    text: str | None = None
    finish_reason: str | None = None


class _Timings(msgspec.Struct, frozen=True, kw_only=True):
    predicted_n: int | None = None


class _Event(msgspec.Struct, frozen=True, kw_only=True):
    choices: list[_Said] = []
    timings: _Timings = _Timings()


_EVENT = msgspec.json.Decoder(_Event)
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_CHOICES = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])


def tellable(values: dict[str, Any]) -> bool:
    """Whether the stream that a request would get tells all that its whole answer does.

    Log-probabilities of tokens that show no text are not in it, nor is the beginning of an answer that the client
    gave as the last message.
    """
    if any(values.get(name) for name in ("logprobs", "top_logprobs", "n_probs")):
        return False
    messages = values.get("messages")
    return not messages or messages[-1].get("role") != "assistant"


class Assembly:
    """Events in, in the order in which they came; one answer out."""

    def __init__(self) -> None:
        self._choices: dict[int, _Choice] = {}
        self._heard_bytes = 0
        self._ended: _Choice | None = None
        """The latest to end: what comes without a choice after it is about it."""

    def add(self, events: bytes) -> None:
        """Whole events, as ``sse.Stream`` lets them pass. Raises Refusal for one that is no part of an answer."""
        self._heard_bytes += len(events)
        if self._heard_bytes > MAX_BYTES:
            raise nonsense()
        for event in events.split(b"\n\n"):
            data = sse.payload(event)
            if data and data != sse.DONE:
                try:
                    self._take(data)
                except _BROKEN:
                    raise nonsense() from None

    def whole(self) -> bytes | None:
        """The answer, once the stream has ended well; None where it did not tell all of it.

        Raises Refusal where a choice has no end.
        """
        choices = [choice for _, choice in sorted(self._choices.items())]
        if not choices or not all(choice.end for choice in choices):
            raise died()
        if any(choice.untold for choice in choices):
            return None
        fields: dict[str, Any] = {"choices": [choice.whole() for choice in choices]}
        for choice in reversed(choices):  # of several usages, the first choice's
            fields |= choice.event
        fields["object"] = "chat.completion" if "delta" in choices[0].end else "text_completion"
        return msgspec.json.encode(fields)

    def _take(self, data: bytes) -> None:
        event = _EVENT.decode(data)
        for said in event.choices:
            self._choices.setdefault(said.index, _Choice()).hear(said, event.timings.predicted_n)
        if event.choices and not any(said.finish_reason for said in event.choices):
            return
        fields = _FIELDS.decode(data)
        ends = _CHOICES.decode(fields.pop("choices", b"[]"))
        for said, end in zip(event.choices, ends, strict=True):
            if said.finish_reason:
                self._ended = self._choices[said.index]
                self._ended.end = end
        if self._ended:
            self._ended.event |= fields
            self._ended.tokens = event.timings.predicted_n or self._ended.tokens


class _Choice:
    """One choice, as far as it is known."""

    def __init__(self) -> None:
        self.end: dict[str, msgspec.Raw] = {}
        """As the event with its finish reason has it."""
        self.event: dict[str, msgspec.Raw] = {}
        """The fields beside it, of that event and those that follow."""
        self.tokens: int | None = None
        self._told = 0
        """Tokens there were when the latest event that said something came."""
        self._role = "assistant"
        self._reason = ""
        self._texts: dict[str, list[str]] = {}
        self._calls: dict[int, list[_Call]] = {}

    @property
    def untold(self) -> bool:
        """Some of its text is in no event.

        llama.cpp keeps back what may become a stop word, a tool call or a character of several tokens, and its stream
        does not give it out at the end, where its whole answer does.
        """
        if self.tokens is None:
            return False
        if self._reason == "length":
            return self._told < self.tokens
        return self.tokens > 1 and not self._texts and not self._calls

    def hear(self, said: _Said, tokens: int | None) -> None:
        self._reason = said.finish_reason or self._reason
        told = False
        for name, value in (said.delta or {"text": said.text}).items():
            if not value:
                continue
            if name == "role":
                self._role = str(value)
                continue
            told = True
            if isinstance(value, str):
                self._texts.setdefault(name, []).append(value)
                continue
            for call in value:
                self._calls.setdefault(call.index, []).append(call)
        if told and tokens is not None:
            self._told = tokens

    def whole(self) -> dict[str, Any]:
        """In the shape of a whole answer; a message without text has an empty one."""
        fields: dict[str, Any] = dict(self.end)
        texts = {name: "".join(parts) for name, parts in self._texts.items()}
        if fields.pop("delta", None) is None:
            return fields | {"text": texts.get("text", "")}
        message: dict[str, Any] = {"role": self._role, "content": "", **texts}
        if self._calls:
            message["tool_calls"] = [_tool_call(parts) for _, parts in sorted(self._calls.items())]
        return fields | {"message": message}


def _tool_call(parts: list[_Call]) -> dict[str, Any]:
    function = {
        "name": "".join(part.function.name for part in parts),
        "arguments": "".join(part.function.arguments for part in parts),
    }
    return {"type": "function", "function": function, "id": "".join(part.id for part in parts)}
