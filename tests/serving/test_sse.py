"""Streams cut anywhere: the same events come out, and nothing that is not for the client."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.sse import MAX_EVENT_BYTES, Stream


def event(content: object) -> bytes:
    return b"data: " + (content.encode() if isinstance(content, str) else json.dumps(content).encode()) + b"\n\n"


def delta(text: str, reason: str | None = None) -> bytes:
    return event({"choices": [{"delta": {"content": text}, "finish_reason": reason}]})


USAGE = event({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 3}})
DONE = event("[DONE]")
WHOLE = delta("a") + delta("b") + delta("", "stop") + USAGE + DONE


def feed(stream: Stream, *parts: bytes) -> bytes:
    out = b""
    for part in parts:
        out += stream.feed(part)
        if stream.ended or stream.refusal:
            break
    return out


@settings(deadline=None)
@given(st.sets(st.integers(0, len(WHOLE))), st.booleans(), st.booleans())
def test_cut_anywhere(cuts: set[int], hide: bool, crlf: bool) -> None:
    text = WHOLE.replace(b"\n", b"\r\n") if crlf else WHOLE
    places = [0, *sorted(cuts), len(text)]
    stream = Stream(hide_usage=hide)
    out = feed(stream, *(text[start:end] for start, end in pairwise(places)))
    assert out == (WHOLE.replace(USAGE, b"") if hide else WHOLE)
    assert stream.ended
    assert stream.refusal is None
    assert stream.usage is not None
    assert (stream.usage.prompt_tokens, stream.usage.completion_tokens) == (5, 3)


@pytest.mark.parametrize("text", ["usage", '"usage"', "error", "[DONE]", "data: [DONE]\n\n", '"finish_reason":"stop"'])
def test_words_that_only_look_like_it(text: str) -> None:
    """A model may say them; only the event's own fields count."""
    stream = Stream(hide_usage=True)
    assert stream.feed(delta(text) * 2) == delta(text) * 2
    assert (stream.usage, stream.ended, stream.refusal) == (None, False, None)
    assert stream.feed(DONE) == b""
    assert stream.refusal is not None  # no finish reason has come


def test_usage_beside_a_choice_is_counted_and_stays() -> None:
    """llama.cpp's /v1/completions puts it into the last event."""
    last = event({"choices": [{"text": "", "finish_reason": "length"}], "usage": {"completion_tokens": 3}})
    stream = Stream(hide_usage=True)
    assert feed(stream, last, DONE) == last + DONE
    assert stream.usage is not None
    assert stream.usage.completion_tokens == 3


def test_usage_null_is_no_usage() -> None:
    stream = Stream(hide_usage=True)
    nothing = event({"choices": [{"delta": {}, "finish_reason": None}], "usage": None})
    assert stream.feed(nothing) == nothing
    assert stream.usage is None


def test_comments_wait_for_the_first_event() -> None:
    stream = Stream(hide_usage=False)
    assert stream.feed(b": ping\n\n") == b""
    assert stream.feed(b": ping\n\n" + delta("a")) == delta("a")
    assert stream.feed(b": ping\n\n") == b": ping\n\n"


def test_null_is_no_event() -> None:
    stream = Stream(hide_usage=False)
    null = event("null")
    assert feed(stream, null + delta("a"), delta("null"), null, delta("", "stop") + DONE) == (
        delta("a") + delta("null") + delta("", "stop") + DONE
    )
    assert stream.events == 3


def test_error_event_ends_it() -> None:
    stream = Stream(hide_usage=False)
    out = feed(stream, delta("a") + event({"error": {"message": "File /x/y.py", "code": 500}}) + DONE)
    assert out == delta("a")
    assert not stream.ended
    assert stream.refusal is not None
    assert (stream.refusal.status, "/x/y" in stream.refusal.message) == (502, False)


@pytest.mark.parametrize(
    "first", [b"data: {broken\n\n", b"data: [1]\n\n", b'data: {"choices": 3}\n\n', b"data: \xff\n\n"]
)
def test_nonsense(first: bytes) -> None:
    stream = Stream(hide_usage=False)
    assert stream.feed(first) == b""
    assert stream.refusal is not None
    assert stream.refusal.status == 502


def test_a_line_without_end() -> None:
    stream = Stream(hide_usage=False)
    for _ in range(MAX_EVENT_BYTES // 65536 + 1):
        assert stream.refusal is None
        assert stream.feed(b"x" * 65536) == b""
    assert stream.refusal is not None


def test_after_done_nothing() -> None:
    stream = Stream(hide_usage=False)
    out = stream.feed(delta("a", "stop") + DONE + DONE + delta("b"))
    assert out == delta("a", "stop") + DONE


def test_events_are_counted() -> None:
    stream = Stream(hide_usage=True)
    feed(stream, delta("a"), delta("b") + delta("c"), USAGE)
    assert stream.events == 3
