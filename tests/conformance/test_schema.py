"""JSON schema: the answer is valid whatever the model, and right where the model can read."""

from __future__ import annotations

import json
from typing import Any

from tests.conformance.endpoint import Endpoint, user

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "enum": ["London", "Paris", "Rome"]},
        "nights": {"type": "integer", "enum": [1, 2, 3]},
        "breakfast": {"type": "boolean"},
    },
    "required": ["city", "nights", "breakfast"],
    "additionalProperties": False,
}
MESSAGES = [
    {"role": "system", "content": "Read the booking and answer as JSON."},
    *user("A room in Paris for 2 nights, with breakfast, please."),
]


def response_format(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}


def check(endpoint: Endpoint, text: str) -> None:
    booking = json.loads(text)
    assert set(booking) == set(SCHEMA["required"])
    assert booking["city"] in SCHEMA["properties"]["city"]["enum"]
    assert booking["nights"] in SCHEMA["properties"]["nights"]["enum"]
    assert isinstance(booking["breakfast"], bool)
    if endpoint.real:
        assert booking == {"city": "Paris", "nights": 2, "breakfast": True}


def test_answer_follows_the_schema(endpoint: Endpoint) -> None:
    answer = endpoint.post(
        "/chat/completions",
        messages=MESSAGES,
        max_tokens=128,
        temperature=0,
        response_format=response_format(SCHEMA),
    )
    assert answer.status == 200, answer.body
    assert answer.body["choices"][0]["finish_reason"] == "stop"
    check(endpoint, answer.text)


def test_streamed_answer_follows_the_schema(endpoint: Endpoint) -> None:
    events = endpoint.events(
        "/chat/completions",
        messages=MESSAGES,
        max_tokens=128,
        temperature=0,
        response_format=response_format(SCHEMA),
    )
    check(endpoint, "".join(event["choices"][0]["delta"].get("content") or "" for event in events))
