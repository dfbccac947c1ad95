"""Whole answers: content, finish reason, usage, and what the sampling parameters promise."""

from __future__ import annotations

import pytest

from tests.conformance.endpoint import ALIAS, MODEL, Endpoint, user

COUNT = "Count from one to twenty in words."
PROMPTS = (COUNT, "Where is my order?", "Name three rivers of Europe.")


def test_chat(endpoint: Endpoint) -> None:
    answer = endpoint.chat("Say hello.", max_tokens=16)
    assert answer.status == 200
    assert answer.body["object"] == "chat.completion"
    assert answer.body["model"] == MODEL
    (choice,) = answer.body["choices"]
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["content"].strip()
    usage = answer.body["usage"]
    assert choice["finish_reason"] == ("length" if usage["completion_tokens"] == 16 else "stop")
    assert usage["prompt_tokens"] > 0
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_completion(endpoint: Endpoint) -> None:
    answer = endpoint.post("/completions", prompt="Once upon a time", max_tokens=8, temperature=0)
    assert answer.status == 200
    assert answer.body["object"] == "text_completion"
    (choice,) = answer.body["choices"]
    assert choice["text"]
    assert choice["finish_reason"] == "length"
    assert answer.body["usage"]["completion_tokens"] == 8


@pytest.mark.parametrize("limit", [1, 7])
def test_max_tokens_ends_with_length(endpoint: Endpoint, limit: int) -> None:
    answer = endpoint.chat(COUNT, max_tokens=limit)
    assert answer.body["choices"][0]["finish_reason"] == "length"
    assert answer.body["usage"]["completion_tokens"] == limit


def test_max_completion_tokens_is_the_same_limit(endpoint: Endpoint) -> None:
    answer = endpoint.chat(COUNT, max_completion_tokens=7)
    assert answer.body["choices"][0]["finish_reason"] == "length"
    assert answer.body["usage"]["completion_tokens"] == 7


def test_stop_sequence_ends_before_itself(endpoint: Endpoint) -> None:
    whole = endpoint.chat(COUNT, max_tokens=32).text
    stop = whole[len(whole) // 2 :][:4]
    answer = endpoint.chat(COUNT, max_tokens=32, stop=[stop])
    assert answer.text == whole[: whole.index(stop)]
    assert answer.body["choices"][0]["finish_reason"] == "stop"


def test_seed_repeats_at_temperature_one(endpoint: Endpoint) -> None:
    """The same seed gives the same text on both engines, as long as nothing else runs beside it."""
    texts = [endpoint.chat(COUNT, max_tokens=24, temperature=1, seed=seed).text for seed in (1, 2, 3, 1, 2, 3)]
    assert texts[:3] == texts[3:]
    assert len(set(texts)) > 1


@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_text_is_the_engines_own(endpoint: Endpoint, prompt: str) -> None:
    body = {"model": MODEL, "messages": user(prompt), "max_tokens": 48, "temperature": 0}
    with endpoint.straight() as engine:
        own = engine.post("/v1/chat/completions", json=body).json()
    through = endpoint.post("/chat/completions", **body)
    assert through.text == own["choices"][0]["message"]["content"]
    assert through.body["usage"]["completion_tokens"] == own["usage"]["completion_tokens"]


def test_two_choices(endpoint: Endpoint) -> None:
    answer = endpoint.chat(COUNT, max_tokens=8, n=2, temperature=1)
    assert sorted(choice["index"] for choice in answer.body["choices"]) == [0, 1]
    assert all(choice["message"]["content"] for choice in answer.body["choices"])


def test_logprobs(endpoint: Endpoint) -> None:
    answer = endpoint.chat(COUNT, max_tokens=4, logprobs=True, top_logprobs=2)
    tokens = answer.body["choices"][0]["logprobs"]["content"]
    assert len(tokens) == 4
    for token in tokens:
        assert token["logprob"] <= 0
        assert len(token["top_logprobs"]) == 2
        assert token["logprob"] == max(rival["logprob"] for rival in token["top_logprobs"])


def test_alias_is_the_same_model(endpoint: Endpoint) -> None:
    answer = endpoint.chat(COUNT, max_tokens=16, model=ALIAS)
    assert answer.status == 200
    assert answer.text == endpoint.chat(COUNT, max_tokens=16).text


def test_receipts(endpoint: Endpoint) -> None:
    """Every answer says which model, revision, engine and lock it came from, and how long it waited."""
    headers = endpoint.chat("Say hello.", max_tokens=1).headers
    assert headers["x-ownweights-model"] == MODEL
    assert headers["x-ownweights-engine"].split()[0] == endpoint.engine
    assert len(headers["x-ownweights-lock"]) == 12
    assert headers["x-ownweights-revision"]
    assert float(headers["x-ownweights-queue-ms"]) >= 0
    assert float(headers["x-ownweights-ttft-ms"]) > 0
