"""Meaning, with the real model: twenty support tickets of our own, sorted through a JSON schema."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conformance.endpoint import Endpoint, user
from tests.conformance.test_schema import response_format

pytestmark = pytest.mark.real

TICKETS = Path(__file__).parent.parent / "fixtures" / "tickets.jsonl"
SCHEMA = {
    "type": "object",
    "properties": {"category": {"type": "string", "enum": ["billing", "shipping", "technical", "account", "other"]}},
    "required": ["category"],
    "additionalProperties": False,
}
# Without the examples, which are none of the tickets, a model of this size sorts 14 of the 20 right.
SYSTEM = """\
You sort support messages. Reply with JSON, one category per message.

Categories:
- "billing": money: charges, invoices, payments, refunds
- "shipping": parcels: delivery, courier, tracking, missing items
- "technical": software faults: crash, error, bug, timeout
- "account": signing in: password, login, blocked user, profile
- "other": everything else: press, jobs, praise, partnerships

Examples:
"Why was I billed for two licences?" -> {"category": "billing"}
"The box never came." -> {"category": "shipping"}
"The page freezes when I click save." -> {"category": "technical"}
"I cannot sign in." -> {"category": "account"}
"May our school visit your office?" -> {"category": "other"}"""
# It gets 20 of 20 as Q4_K_M on llama.cpp; guessing would get 4.
WANTED = 16


def test_support_tickets(endpoint: Endpoint, capsys: pytest.CaptureFixture[str]) -> None:
    tickets = [json.loads(line) for line in TICKETS.read_text().splitlines()]
    assert len(tickets) == 20
    wrong = []
    for ticket in tickets:
        answer = endpoint.post(
            "/chat/completions",
            messages=[{"role": "system", "content": SYSTEM}, *user(ticket["text"])],
            max_tokens=32,
            temperature=0,
            response_format=response_format(SCHEMA),
        )
        found = json.loads(answer.text)["category"]
        if found != ticket["category"]:
            wrong.append(f"{found}, not {ticket['category']}: {ticket['text']}")
    right = len(tickets) - len(wrong)
    with capsys.disabled():
        print(f"\ntickets sorted right by the real model on {endpoint.engine}: {right} of {len(tickets)}")
    assert right >= WANTED, "\n".join(wrong)
