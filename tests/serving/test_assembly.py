"""A whole answer cut into events in any way comes out as it was; one that the events do not tell is not made up."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving import assembly
from serving.assembly import Assembly, tellable
from serving.refusal import Refusal

FIELDS = {"id": "chatcmpl-1", "created": 7, "model": "chat", "system_fingerprint": "b1"}
TEXT = st.text(max_size=20)
CALLS = st.lists(
    st.builds(
        lambda name, arguments, id: {"type": "function", "function": {"name": name, "arguments": arguments}, "id": id},
        st.text(min_size=1, max_size=5),
        TEXT,
        st.text(max_size=5),
    ),
    max_size=2,
)


@st.composite
def messages(draw: st.DrawFn) -> dict[str, Any]:
    message = {"role": "assistant", "content": draw(TEXT)}
    for name in ("reasoning_content", "reasoning", "refusal"):
        if text := draw(st.just("") | TEXT):
            message[name] = text
    if calls := draw(CALLS):
        message["tool_calls"] = calls
    return message


@st.composite
def wholes(draw: st.DrawFn) -> dict[str, Any]:
    chat = draw(st.booleans())
    choices = []
    for index in range(draw(st.integers(1, 3))):
        said = {"message": draw(messages())} if chat else {"text": draw(TEXT), "logprobs": None}
        choices.append({**said, "index": index, "finish_reason": draw(st.sampled_from(["stop", "tool_calls"]))})
    usage = {"completion_tokens": draw(st.integers(0, 2**40)), "prompt_tokens_details": {"cached_tokens": 3}}
    timings = {"predicted_n": None, "predicted_ms": draw(st.floats(0, 1e9))}
    kind = "chat.completion" if chat else "text_completion"
    return {**FIELDS, "object": kind, "choices": choices, "usage": usage, "timings": timings}


def parts(draw: st.DrawFn, text: str) -> list[str]:
    cuts = sorted(draw(st.sets(st.integers(0, len(text)), max_size=3)) | {0, len(text)})
    return [text[start:end] for start, end in pairwise(cuts)]


def deltas(draw: st.DrawFn, message: dict[str, Any]) -> list[dict[str, Any]]:
    """As llama.cpp begins: with the role and a null."""
    found: list[dict[str, Any]] = [{"role": message["role"], "content": None}]
    for name in ("reasoning_content", "reasoning", "content", "refusal"):
        found += [{name: part} for part in parts(draw, message.get(name, ""))]
    for number, call in enumerate(message.get("tool_calls", [])):
        named = {"id": call["id"], "type": "function", "function": {"name": call["function"]["name"]}}
        found.append({"tool_calls": [{"index": number, **named}]})
        for part in parts(draw, call["function"]["arguments"]):
            found.append({"tool_calls": [{"index": number, "function": {"arguments": part}}]})
    return found


def said(draw: st.DrawFn, choice: dict[str, Any]) -> list[dict[str, Any]]:
    """All that is said of one choice, the end last."""
    rest = {name: value for name, value in choice.items() if name not in ("message", "text", "finish_reason")}
    if "message" in choice:
        bodies = [{"delta": delta} for delta in [*deltas(draw, choice["message"]), {}]]
    else:
        bodies = [{"text": part} for part in [*parts(draw, choice["text"]), ""]]
    events = [{**rest, **body, "finish_reason": None} for body in bodies]
    events[-1]["finish_reason"] = choice["finish_reason"]
    return events


@st.composite
def streams(draw: st.DrawFn) -> tuple[dict[str, Any], list[bytes]]:
    """A whole answer, and its events: choices interleaved, and a usage of its own after each."""
    whole = draw(wholes())
    kind = "chat.completion.chunk" if whole["object"] == "chat.completion" else whole["object"]
    waiting = {choice["index"]: said(draw, choice) for choice in whole["choices"]}
    events = []
    while waiting:
        index = draw(st.sampled_from(sorted(waiting)))
        events.append(event({**FIELDS, "object": kind, "choices": [waiting[index].pop(0)]}))
        if not waiting[index]:
            del waiting[index]
            usage = whole["usage"] if index == 0 else {"completion_tokens": -1}
            last = {**FIELDS, "object": kind, "choices": [], "usage": usage, "timings": whole["timings"]}
            events.append(event(last))
    return whole, [*events, b"data: [DONE]\n\n"]


def event(content: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(content).encode() + b"\n\n"


def chunk(text: str = "", reason: str | None = None, tokens: int | None = None) -> bytes:
    timings = {"timings": {"predicted_n": tokens}} if tokens else {}
    return event({**FIELDS, "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": reason}], **timings})


def told(*events: bytes) -> Any:
    """The answer, or None."""
    found = Assembly()
    for each in events:
        found.add(each)
    whole = found.whole()
    return None if whole is None else json.loads(whole)


@settings(deadline=None)
@given(streams(), st.integers(1, 5))
def test_what_was_cut_is_whole_again(stream: tuple[dict[str, Any], list[bytes]], step: int) -> None:
    whole, events = stream
    assert told(*(b"".join(events[start : start + step]) for start in range(0, len(events), step))) == whole


def test_one_usage_for_all_choices() -> None:
    def end(index: int) -> dict[str, Any]:
        return {"choices": [{"index": index, "delta": {"content": "a"}, "finish_reason": "stop"}]}

    usage = {"completion_tokens": 2}
    whole = told(event(end(1)), event(end(0)), event({"choices": [], "usage": usage}))
    assert whole["usage"] == usage
    assert [choice["index"] for choice in whole["choices"]] == [0, 1]


def test_what_else_the_last_events_carry_stays() -> None:
    last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "stop_reason": 13}], "service_tier": "x"}
    whole = told(chunk("a"), event(last), event({"choices": [], "metrics": {"queue_ms": 1.50}}))
    assert whole["choices"][0]["stop_reason"] == 13
    assert (whole["service_tier"], whole["metrics"]) == ("x", {"queue_ms": 1.5})


def test_what_passing_events_carry_does_not() -> None:
    progress = event({"choices": [{"index": 0, "delta": {"role": "assistant"}}], "prompt_progress": {"total": 9}})
    assert "prompt_progress" not in told(progress, chunk("a"), chunk(reason="stop"))


def test_comments_say_nothing() -> None:
    assert told(chunk("a"), b": ping\n\n", chunk(reason="stop"))["choices"][0]["message"]["content"] == "a"


@pytest.mark.parametrize(
    ("events", "content"),
    [
        ([chunk("a", tokens=1), chunk("b", tokens=2), chunk(reason="length", tokens=2)], "ab"),
        ([chunk("a", tokens=1), chunk(reason="length", tokens=2)], None),
        ([chunk("a", tokens=1), chunk("", tokens=2), chunk(reason="length", tokens=2)], None),
        ([chunk(reason="length", tokens=1)], None),
        ([chunk("a", tokens=1), chunk(reason="stop", tokens=3)], "a"),  # the tokens of a stop word, or the last one
        ([chunk(reason="stop", tokens=1)], ""),
        ([chunk(reason="stop", tokens=5)], None),  # a tool call that was none
        ([chunk("a"), chunk(reason="length")], "a"),  # an engine that does not count
    ],
)
def test_what_was_kept_back_is_noticed(events: list[bytes], content: str | None) -> None:
    whole = told(*events)
    assert (whole and whole["choices"][0]["message"]["content"]) == content


@pytest.mark.parametrize(
    "events", [[], [chunk("a")], [chunk("a", "stop"), chunk("b").replace(b'"index": 0', b'"index": 1')]]
)
def test_a_choice_without_an_end_is_no_answer(events: list[bytes]) -> None:
    with pytest.raises(Refusal) as caught:
        told(*events)
    assert caught.value.code == "engine_died"


@pytest.mark.parametrize(
    "data",
    [
        b"data: {broken\n\n",
        b"data: [1]\n\n",
        b'data: {"choices": 3}\n\n',
        b'data: {"choices": [{"delta": {"content": 3}}]}\n\n',
        b'data: {"choices": [{"delta": {"audio": {"data": "x"}}}]}\n\n',
        b'data: {"choices": [{"delta": {"tool_calls": [{"id": "x"}]}}]}\n\n',
        b"data: \xff\n\n",
    ],
)
def test_nonsense(data: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        Assembly().add(data)
    assert caught.value.code == "engine_nonsense"


def test_a_stream_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assembly, "MAX_BYTES", 1000)
    with pytest.raises(Refusal):
        told(*[chunk("a")] * 20)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"prompt": "a", "logprobs": 0, "stop": ["b"]}, True),
        ({"prompt": "a", "logprobs": 1}, False),
        ({"messages": [{"role": "user"}], "logprobs": False, "tools": [{}]}, True),
        ({"messages": [{"role": "user"}], "logprobs": True}, False),
        ({"messages": [{"role": "user"}], "n_probs": 1}, False),
        ({"messages": [{"role": "assistant"}, {"role": "user"}]}, True),
        ({"messages": [{"role": "user"}, {"role": "assistant"}]}, False),
    ],
)
def test_requests_whose_stream_tells_all(values: dict[str, Any], told: bool) -> None:
    assert tellable(values) is told
