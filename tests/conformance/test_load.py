"""Several clients at once, and clients that leave."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

from tests.conformance.endpoint import MODEL, Endpoint, user
from tests.conformance.test_schema import response_format

# Far less than a long answer takes, far more than the engine needs to notice.
FREED_WITHIN_S = 5.0
STARTED_WITHIN_S = 30.0


def long_answer(endpoint: Endpoint, *, stream: bool) -> dict[str, object]:
    """Fills most of the window, which takes many times FREED_WITHIN_S."""
    text = "Write a very long story about a ship. Never end it."
    limit = endpoint.context_tokens - 512
    return {"model": MODEL, "messages": user(text), "max_tokens": limit, "temperature": 1, "stream": stream}


def test_clients_that_leave_a_stream_free_their_slots(endpoint: Endpoint) -> None:
    with ExitStack() as opened:
        client = opened.enter_context(endpoint.connect())
        streams = []
        for _ in range(endpoint.slots):
            body = long_answer(endpoint, stream=True)
            response = opened.enter_context(client.stream("POST", "/chat/completions", json=body))
            assert response.status_code == 200
            # Kept, because the client closes the connection when the iterator is collected.
            streams.append(response.iter_lines())
            assert next(streams[-1]).startswith("data: ")
        endpoint.await_running(endpoint.slots, within_s=STARTED_WITHIN_S)
    endpoint.await_running(0, within_s=FREED_WITHIN_S)
    assert endpoint.chat("Say hello.", max_tokens=1).status == 200


def test_clients_that_leave_before_the_answer_free_their_slots(endpoint: Endpoint) -> None:
    """Nothing has been sent back when they go, so only the closed connection can tell."""
    with ExitStack() as opened:
        for _ in range(endpoint.slots):
            opened.enter_context(request_without_reading(endpoint))
        endpoint.await_running(endpoint.slots, within_s=STARTED_WITHIN_S)
    endpoint.await_running(0, within_s=FREED_WITHIN_S)
    assert endpoint.chat("Say hello.", max_tokens=1).status == 200


def test_one_that_leaves_before_the_answer_beside_a_stream(endpoint: Endpoint) -> None:
    """The engine is never silent, so silence cannot be what makes it look for closed connections."""
    with ExitStack() as opened:
        client = opened.enter_context(endpoint.connect())
        body = long_answer(endpoint, stream=True)
        response = opened.enter_context(client.stream("POST", "/chat/completions", json=body))
        lines = response.iter_lines()
        assert next(lines).startswith("data: ")
        with request_without_reading(endpoint):
            endpoint.await_running(2, within_s=STARTED_WITHIN_S)
        endpoint.await_running(1, within_s=FREED_WITHIN_S)


@contextmanager
def request_without_reading(endpoint: Endpoint) -> Iterator[None]:
    """A long answer, not streamed, whose client closes the connection at the end of the block."""
    address = urlsplit(endpoint.base_url)
    body = json.dumps(long_answer(endpoint, stream=False)).encode()
    head = (
        f"POST {address.path}/chat/completions HTTP/1.1\r\nhost: {address.netloc}\r\n"
        f"authorization: Bearer {endpoint.key}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((address.hostname, address.port)) as connection:
        connection.sendall(head.encode() + body)
        yield


def test_more_clients_than_slots_each_get_their_own_answer(endpoint: Endpoint) -> None:
    """The schema allows each client one word only, so that an answer in the wrong hands shows."""
    words = [f"answer-{number}" for number in range(2 * endpoint.slots)]

    def ask(word: str) -> str:
        schema = {
            "type": "object",
            "properties": {"word": {"type": "string", "enum": [word]}},
            "required": ["word"],
            "additionalProperties": False,
        }
        answer = endpoint.chat("Say the word.", max_tokens=64, response_format=response_format(schema))
        found: str = json.loads(answer.text)["word"]
        return found

    with ThreadPoolExecutor(len(words)) as clients:
        assert list(clients.map(ask, words)) == words
