"""Streamed answers: the order of the events, and the same words as the whole answer."""

from __future__ import annotations

from typing import Any

from tests.conformance.endpoint import MODEL, Endpoint, user

TEXT = "Name three rivers of Europe."
CHAT = {"messages": user(TEXT), "max_tokens": 24, "temperature": 0}


def joined(events: list[dict[str, Any]]) -> str:
    return "".join(choice["delta"].get("content") or "" for event in events for choice in event["choices"])


def reasons(events: list[dict[str, Any]]) -> list[str | None]:
    return [choice["finish_reason"] for event in events for choice in event["choices"]]


def test_chat_stream(endpoint: Endpoint) -> None:
    events = endpoint.events("/chat/completions", **CHAT)
    assert {event["object"] for event in events} == {"chat.completion.chunk"}
    assert {event["model"] for event in events} == {MODEL}
    assert len({event["id"] for event in events}) == 1
    assert events[0]["choices"][0]["delta"]["role"] == "assistant"
    assert sum(bool(choice["delta"].get("content")) for event in events for choice in event["choices"]) > 3
    whole = endpoint.chat(TEXT, max_tokens=24)
    assert joined(events) == whole.text
    ends = reasons(events)
    assert ends[-1] == whole.body["choices"][0]["finish_reason"]
    assert set(ends[:-1]) == {None}


def test_no_usage_unless_asked(endpoint: Endpoint) -> None:
    events = endpoint.events("/chat/completions", **CHAT)
    assert all(event["choices"] for event in events)
    assert all(event.get("usage") is None for event in events)


def test_usage_when_asked(endpoint: Endpoint) -> None:
    *deltas, last = endpoint.events("/chat/completions", **CHAT, stream_options={"include_usage": True})
    assert last["choices"] == []
    assert all(event.get("usage") is None for event in deltas)
    whole = endpoint.chat(TEXT, max_tokens=24).body["usage"]
    for count in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert last["usage"][count] == whole[count]


def test_completion_stream(endpoint: Endpoint) -> None:
    body = {"prompt": "Once upon a time", "max_tokens": 12, "temperature": 0}
    events = endpoint.events("/completions", **body)
    assert {event["object"] for event in events} == {"text_completion"}
    text = "".join(choice["text"] for event in events for choice in event["choices"])
    assert text == endpoint.post("/completions", **body).text
    assert reasons(events)[-1] == "length"


def test_completions_of_several_prompts_in_one_stream(endpoint: Endpoint) -> None:
    body = {"prompt": ["Once upon a time", "Two and two", "The sea"], "max_tokens": 6, "temperature": 0}
    texts = ["", "", ""]
    for event in endpoint.events("/completions", **body):
        for choice in event["choices"]:
            texts[choice["index"]] += choice["text"]
    whole = endpoint.post("/completions", **body).body["choices"]
    assert texts == [choice["text"] for choice in whole]


def test_stop_sequence_never_shows_in_a_stream(endpoint: Endpoint) -> None:
    whole = endpoint.chat(TEXT, max_tokens=24).text
    stop = whole[len(whole) // 2 :][:4]
    events = endpoint.events("/chat/completions", **CHAT, stop=[stop])
    assert joined(events) == whole[: whole.index(stop)]
    assert reasons(events)[-1] == "stop"


def test_receipts_come_with_the_head_of_a_stream(endpoint: Endpoint) -> None:
    body = {"model": MODEL, "stream": True, **CHAT}
    with endpoint.connect() as client, client.stream("POST", "/chat/completions", json=body) as response:
        assert response.headers["x-ownweights-model"] == MODEL
        assert response.headers["x-ownweights-engine"].split()[0] == endpoint.engine
        assert float(response.headers["x-ownweights-ttft-ms"]) > 0
