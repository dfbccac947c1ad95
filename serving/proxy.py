"""Request decisions, without any I/O: who asks, what for, of which model, and in which words the engine is asked.

What is authorised is what is forwarded: the body is read once, and the engine gets those bytes or the re-encoded
values of that one reading.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from serving import assembly, document
from serving.board import Board, Entry
from serving.keys import Keyring
from serving.parameters import Asked, Chat, Embedding, check
from serving.refusal import Refusal, overflow

Headers = Iterable[tuple[bytes, bytes]]
"""Lower-case names and values, as they came."""

MAX_HEADERS = 100
MAX_HEADER_BYTES = 32 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """An accepted request: what to send to which engine, and how to pass the answer on."""

    entry: Entry
    path: str
    body: bytes
    stream: bool
    hide_usage: bool
    """The usage event was our wish, not the client's: take it out of the stream."""
    as_stream: bytes | None
    """``body`` as a request for a stream, where that is how to ask for a whole answer; see ``serving.assembly``."""


def screen(headers: Headers) -> None:
    """Raises Refusal 431 for headers beyond reason."""
    count = size = 0
    for name, value in headers:
        count += 1
        size += len(name) + len(value)
    if count > MAX_HEADERS or size > MAX_HEADER_BYTES:
        raise Refusal(431, f"more than {MAX_HEADERS} headers or {MAX_HEADER_BYTES} bytes of them")


def authorise(headers: Headers, keyring: Keyring) -> None:
    """Raises Refusal 401 unless there is exactly one credential, and it is a key that we know."""
    given = [(name, value) for name, value in headers if name in (b"authorization", b"x-api-key")]
    if len(given) == 1 and keyring.knows(_token(*given[0])):
        return
    raise Refusal(
        401,
        "a valid key is needed, once, as `Authorization: Bearer <key>`: `ownweights env` prints the operator's",
        code="invalid_api_key",
    )


def expect_body(headers: Headers) -> None:
    """Before the body is read: raises Refusal 413 for a length over the cap, 415 for an encoded body."""
    for name, value in headers:
        if name == b"content-length" and (len(value) > 15 or int(value) > document.MAX_BYTES):
            raise too_large()
        if name == b"content-encoding" and value.lower() != b"identity":
            raise Refusal(415, "the body must come without Content-Encoding", code="unsupported_encoding")


def too_large() -> Refusal:
    return Refusal(413, f"the body is larger than {document.MAX_BYTES} bytes", code="body_too_large")


def decide(path: str, body: bytes, values: dict[str, Any], board: Board) -> Order:
    """The order in ``body``, read as ``values``, for one of ``parameters.PATHS``. Raises Refusal 400 or 404."""
    asked = check(path, values)
    entry = board.find(asked.model)
    if entry is None:
        raise unknown_model(asked.model)
    if isinstance(asked, Chat) and len(asked.messages) > entry.served.context_tokens:
        # A message costs a token at least; an engine would render all of them before it said so.
        raise overflow(len(asked.messages), entry.served.context_tokens)
    changes: dict[str, Any] = {}
    if asked.model != entry.served.name:
        changes["model"] = entry.served.name
    hide_usage = _wants_no_usage(asked)
    if hide_usage:
        changes["stream_options"] = (values.get("stream_options") or {}) | {"include_usage": True}
    asking = document.amend(body, values, changes)
    assemble = _answers_whole(asked) and not entry.served.cancels_whole_answers and assembly.tellable(values)
    return Order(
        entry=entry,
        path=path,
        body=asking,
        stream=asked.stream is True,
        hide_usage=hide_usage,
        as_stream=document.amend(asking, values | changes, assembly.AS_STREAM) if assemble else None,
    )


def unknown_model(name: str) -> Refusal:
    return Refusal(404, f"the model `{name}` is not served here", param="model", code="model_not_found")


def _token(name: bytes, value: bytes) -> bytes:
    if name == b"x-api-key":
        return value
    scheme, _, token = value.partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else b""


def _answers_whole(asked: Asked) -> bool:
    """A generated answer in one piece."""
    return asked.stream is not True and not isinstance(asked, Embedding)


def _wants_no_usage(asked: Asked) -> bool:
    """A stream whose client did not ask for the usage that we count by."""
    options = asked.stream_options
    return asked.stream is True and not (options and options.include_usage)
