"""The stream of one answer: whole events only, errors seen, usage counted, nothing else touched.

Events leave as they came, in the engine's bytes. A partial event waits for its end, so whatever we add or take out
falls between two events. Most reads pass a few substring tests; only those that may carry usage, an error or the
end are parsed, and what they are is decided on the parsed object.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from serving.answers import Usage, translate
from serving.refusal import Refusal, died, nonsense

MAX_EVENT_BYTES = 4 * 1024 * 1024

DONE = b"[DONE]"

_NOTHING = b"null"
"""llama.cpp says it at the start of each further prompt of a completion; OpenAI's clients stumble over it."""
_MARKS = (b'"usage"', b'"finish_reason":"', b'"finish_reason": "', DONE, b'"error"', b"data: " + _NOTHING)


class _Choice(msgspec.Struct, frozen=True, kw_only=True):
    finish_reason: str | None = None


class _Event(msgspec.Struct, frozen=True, kw_only=True):
    choices: list[_Choice] | None = None
    usage: Usage | None = None
    error: Any = None


_EVENT = msgspec.json.Decoder(_Event)


def payload(event: bytes) -> bytes:
    """What an event says; b"" for a comment."""
    return b"\n".join(line[5:] for line in event.split(b"\n") if line.startswith(b"data:")).strip()


class Stream:
    """Reads in, events out. After each ``feed`` look at ``refusal`` and ``ended``."""

    def __init__(self, *, hide_usage: bool) -> None:
        self.usage: Usage | None = None
        self.events = 0
        """Passed on so far: where the engine reports no usage, they are all there is to count."""
        self.ended = False
        """[DONE] has come, after a finish reason and no error: the answer is whole."""
        self.refusal: Refusal | None = None
        """Why the stream must end here, without [DONE]."""
        self._hide_usage = hide_usage
        self._finished = False
        self._tail = bytearray()

    def feed(self, data: bytes) -> bytes:
        """The whole events that ``data`` completes, less what is not for the client; may be empty."""
        self._tail += data
        if b"\n" not in data:
            return self._hold()
        text = bytes(self._tail).replace(b"\r\n", b"\n")
        end = text.rfind(b"\n\n") + 2
        if end < 2:
            return self._hold()
        whole = text[:end]
        self._tail = bytearray(text[end:])
        if self.events and not any(mark in whole for mark in _MARKS):
            self.events += whole.count(b"\n\n")
            return whole
        return b"".join(self._sift(whole))

    def _hold(self) -> bytes:
        if len(self._tail) > MAX_EVENT_BYTES:
            self.refusal = nonsense()
        return b""

    def _sift(self, whole: bytes) -> Iterator[bytes]:
        for event in whole.split(b"\n\n")[:-1]:
            if self._keep(event):
                yield event + b"\n\n"
            if self.ended or self.refusal:
                return

    def _keep(self, event: bytes) -> bool:
        data = payload(event)
        if not data:
            # A comment keeps an open stream alive; before the first event there is no stream, and TTFT is no ping.
            return self.events > 0
        if data == _NOTHING:
            return False
        if data == DONE:
            self.ended = self._finished
            self.refusal = None if self._finished else died()
            return self.ended
        try:
            said = _EVENT.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.refusal = nonsense()
            return False
        return self._pass(said)

    def _pass(self, said: _Event) -> bool:
        if said.error is not None:
            self.refusal = translate(500, said.error)
            return False
        if said.usage is not None:
            self.usage = said.usage
            if self._hide_usage and not said.choices:
                return False
        self._finished = self._finished or any(choice.finish_reason for choice in said.choices or ())
        self.events += 1
        return True
