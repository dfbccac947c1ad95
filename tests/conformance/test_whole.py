"""A whole answer through the gateway is, field by field, the one that the engine itself gives.

llama.cpp is asked for a stream in its place, because it goes on working when the client of a whole answer leaves.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conformance.endpoint import MODEL, Endpoint, user
from tests.conformance.test_schema import response_format

CHAT, COMPLETION = "/chat/completions", "/completions"
COUNT = user("Count from one to twenty in words.")
CAPITAL = response_format(
    {"type": "object", "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}}, "required": ["city"]}
)
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
BESIDES = {"id", "created", "timings"}
"""What differs between any two answers."""

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": (CHAT, {"messages": user("Say hello."), "max_tokens": 48}),
    "length": (CHAT, {"messages": COUNT, "max_tokens": 7}),
    "one token": (CHAT, {"messages": COUNT, "max_tokens": 1}),
    "logprobs": (CHAT, {"messages": COUNT, "max_tokens": 8, "logprobs": True, "top_logprobs": 2}),
    "two choices": (CHAT, {"messages": COUNT, "max_tokens": 12, "n": 2, "temperature": 1, "seed": 7}),
    "schema": (CHAT, {"messages": user("Capital of France?"), "max_tokens": 32, "response_format": CAPITAL}),
    "tools": (CHAT, {"messages": user("Weather in Paris?"), "max_tokens": 64, "tools": [WEATHER]}),
    "prefilled": (CHAT, {"messages": [*COUNT, {"role": "assistant", "content": "One, two,"}], "max_tokens": 8}),
    "completion": (COMPLETION, {"prompt": "Once upon a time", "max_tokens": 12}),
    "completion of two": (COMPLETION, {"prompt": ["Once upon a time", "Two and two"], "max_tokens": 6}),
    "completion with logprobs": (COMPLETION, {"prompt": "Once upon a time", "max_tokens": 6, "logprobs": 2}),
}


def same(endpoint: Endpoint, path: str, **fields: Any) -> dict[str, Any]:
    """Ask both ways; returns the engine's own answer."""
    # What a prompt's cache holds is arithmetic of another order, and shows in the last digit of a log-probability.
    body = {"model": MODEL, "temperature": 0, "cache_prompt": False, **fields}
    with endpoint.straight() as engine:
        own = engine.post(f"/v1{path}", json=body)
    through = endpoint.post(path, **body)
    assert through.status == own.status_code
    if own.status_code == 200:
        assert through.body.keys() == own.json().keys()
        assert comparable(through.body) == comparable(own.json())
    return dict(own.json())


def comparable(answer: dict[str, Any]) -> dict[str, Any]:
    answer = {name: value for name, value in answer.items() if name not in BESIDES}
    if details := answer["usage"].get("prompt_tokens_details"):
        details["cached_tokens"] = None
    for choice in answer["choices"]:
        for call in choice.get("message", {}).get("tool_calls") or ():
            call["id"] = len(call["id"])
    return answer


@pytest.mark.parametrize("case", CASES)
def test_field_by_field(endpoint: Endpoint, case: str) -> None:
    path, fields = CASES[case]
    own = same(endpoint, path, **fields)
    assert own.get("choices") or case == "tools"  # which vLLM refuses where no parser is set


def test_with_a_stop_sequence(endpoint: Endpoint) -> None:
    """One that comes; and one that only begins, in the last token: a stream never gets that token's text."""
    text = same(endpoint, CHAT, messages=COUNT, max_tokens=9)["choices"][0]["message"]["content"]
    middle = text[len(text) // 2 :][:3]
    stopped = same(endpoint, CHAT, messages=COUNT, max_tokens=9, stop=[middle])["choices"][0]
    assert (stopped["finish_reason"], stopped["message"]["content"]) == ("stop", text[: text.index(middle)])
    begun = same(endpoint, CHAT, messages=COUNT, max_tokens=9, stop=[f"{text[-1]}never"])["choices"][0]
    assert (begun["finish_reason"], begun["message"]["content"]) == ("length", text)


@pytest.mark.real
@pytest.mark.parametrize("limit", range(1, 8))
def test_cut_inside_a_character(endpoint: Endpoint, limit: int) -> None:
    """Some of these characters are three tokens long, and a part of one is in no event."""
    same(endpoint, CHAT, messages=user("Repeat: 😀🎉 你好 \N{MATHEMATICAL DOUBLE-STRUCK CAPITAL A}"), max_tokens=limit)


@pytest.mark.real
@pytest.mark.parametrize("limit", [4, 12, 64])
def test_tool_call(endpoint: Endpoint, limit: int) -> None:
    """Forced by its first token; cut short in its head, in its arguments, and not at all."""
    bias = {"151657": 20}  # <tool_call> in Qwen2.5's vocabulary
    messages = [*called("Rome", "sunny"), *called("Oslo", "raining"), *user("Weather in Paris?")]
    own = same(endpoint, CHAT, messages=messages, max_tokens=limit, tools=[WEATHER], logit_bias=bias)
    if endpoint.engine == "llamacpp":
        (choice,) = own["choices"]
        assert bool(choice["message"].get("tool_calls")) == (limit > 4)
        assert choice["finish_reason"] == ("tool_calls" if limit == 64 else "length")


def called(city: str, weather: str) -> list[dict[str, Any]]:
    """An earlier call, for the model to do the same."""
    call = {"id": city, "type": "function", "function": {"name": "weather", "arguments": json.dumps({"city": city})}}
    return [
        *user(f"Weather in {city}?"),
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": city, "content": weather},
        {"role": "assistant", "content": f"It is {weather}."},
    ]
