"""Requests as bytes, and what the gateway makes of them without any network."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import strategies as st

from serving import document, proxy
from serving.board import Board, Served
from serving.proxy import Order
from serving.refusal import Refusal

CHAT, COMPLETION, EMBEDDING = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
MESSAGES = [{"role": "user", "content": "hello"}]
WINDOW = 64
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def board(*, cancels_whole_answers: bool = True) -> Board:
    found = Board()
    served = Served(
        name="chat",
        aliases=("gpt-4",),
        socket="e.sock",
        revision="r1",
        engine="fake 1",
        lock="0",
        context_tokens=WINDOW,
        slots=1,
        created=1,
        cancels_whole_answers=cancels_whole_answers,
    )
    found.put(served)
    return found


def decide(body: bytes, path: str = CHAT, *, cancels_whole_answers: bool = True) -> Order:
    return proxy.decide(path, body, document.read(body), board(cancels_whole_answers=cancels_whole_answers))


def chat(**fields: Any) -> bytes:
    return json.dumps({"model": "chat", "messages": MESSAGES, **fields}).encode()


def refused(body: bytes, path: str = CHAT) -> Refusal:
    with pytest.raises(Refusal) as caught:
        decide(body, path)
    return caught.value


def outcome(body: bytes, path: str = CHAT) -> Order | Refusal:
    """The one or the other; anything else is a failure."""
    try:
        return decide(body, path)
    except Refusal as refusal:
        return refusal


def names(text: str) -> list[str]:
    return text.split()
