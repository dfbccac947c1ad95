"""An engine that dies: the client is told, and the model comes back by itself."""

from __future__ import annotations

import json
import os
import signal
import time

from tests.conformance.endpoint import MODEL, Endpoint, user

BACK_WITHIN_S = 240.0


def test_engine_killed_in_the_middle_of_a_stream(endpoint: Endpoint) -> None:
    body = {
        "model": MODEL,
        "messages": user("Write a very long story about a ship. Never end it."),
        "max_tokens": endpoint.context_tokens - 512,
        "stream": True,
    }
    with endpoint.connect() as client, client.stream("POST", "/chat/completions", json=body) as response:
        lines = response.iter_lines()
        assert next(lines).startswith("data: ")
        killed = endpoint.pid()
        os.kill(killed, signal.SIGKILL)
        rest = [line for line in lines if line]
    assert "data: [DONE]" not in rest
    assert json.loads(rest[-1].removeprefix("data: "))["error"]["code"] == "engine_died"
    await_answer(endpoint)
    assert endpoint.pid() != killed


def await_answer(endpoint: Endpoint) -> None:
    """Until then every refusal must be the one that says to come back."""
    deadline = time.monotonic() + BACK_WITHIN_S
    while (answer := endpoint.chat("Say hello.", max_tokens=1)).status != 200:
        assert answer.status == 503, answer.body
        assert int(answer.headers["retry-after"]) > 0
        assert time.monotonic() < deadline, answer.body
        time.sleep(0.1)
