"""What llama.cpp takes, with every slot full of a prompt, against what the plan said."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deploy.measured import DIFFERENCE
from serving.engines.llamacpp import LlamaCpp
from tests.conformance.endpoint import Endpoint, World

ROOM_TOKENS = 64
"""Of the context, for the answer."""


def test_the_peak_is_what_the_plan_said(endpoint: Endpoint, world: World) -> None:
    if endpoint.engine != "llamacpp":
        pytest.skip("of llama.cpp alone")
    planned = world.deployment()["plan"]["models"][0]
    with ThreadPoolExecutor(endpoint.slots) as clients:
        answered = list(clients.map(lambda slot: fill(endpoint, slot), range(endpoint.slots)))
    assert all(tokens > endpoint.context_tokens - 2 * ROOM_TOKENS for tokens in answered)
    # What was learnt from earlier starts of a kept home would hide an error of the formulas.
    expected = sum(term["bytes"] for term in planned["memory"] if term["name"] != DIFFERENCE)
    assert expected == pytest.approx(peak_bytes(endpoint.pid()), rel=0.1)


def test_its_log_says_what_the_plan_said(endpoint: Endpoint, world: World) -> None:
    if endpoint.engine != "llamacpp":
        pytest.skip("of llama.cpp alone")
    planned = world.deployment()["plan"]["models"][0]
    said = LlamaCpp().figures(Path(planned["log"]).read_text(errors="replace"))
    assert said.kv_tokens == planned["kv_tokens"]
    assert said.kv_bytes == planned["settings"]["kv_cache_bytes"]
    assert said.weights_bytes == pytest.approx(planned["weights_bytes"], rel=0.03)


def fill(endpoint: Endpoint, slot: int) -> int:
    """One prompt as long as a slot allows: digits are tokens of their own. Returns how many the engine counted."""
    digits = endpoint.context_tokens - ROOM_TOKENS
    prompt = "".join(str((place * place + slot) % 10) for place in range(digits))
    body = {"prompt": prompt, "max_tokens": 4, "temperature": 0}
    with endpoint.straight() as client:
        answer = client.post("/v1/completions", json=body, timeout=600)
    assert answer.status_code == 200, answer.text
    return int(answer.json()["usage"]["prompt_tokens"])


def peak_bytes(pid: int) -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) * 1024
