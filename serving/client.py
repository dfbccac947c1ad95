"""A small HTTP client for our own gateway: what the commands ask it. Standard library, nothing on the hot path."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from typing import Any

import msgspec

from deploy.errors import EngineError, UserError

ANSWER_S = 10.0


class Client:
    """Asks with the operator's key."""

    def __init__(self, host: str, port: int, key: str) -> None:
        self.host = host
        self.port = port
        self._headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}

    def get(self, path: str) -> tuple[int, Any]:
        """Status and decoded body. OSError where nobody answers."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=ANSWER_S)
        try:
            connection.request("GET", path, headers=self._headers)
            answer = connection.getresponse()
            return answer.status, msgspec.json.decode(answer.read())
        finally:
            connection.close()

    def stream(self, path: str, body: object) -> Iterator[Any]:
        """The events of a streamed answer, decoded. Raises UserError or EngineError for an error of the server's."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=None)
        try:
            connection.request("POST", path, body=msgspec.json.encode(body), headers=self._headers)
            answer = connection.getresponse()
            if answer.status != 200:
                raise _refused(answer.status, answer.read())
            for line in answer:
                if line.startswith(b"data: ") and not line.startswith(b"data: [DONE]"):
                    event = msgspec.json.decode(line[6:])
                    if "error" in event:
                        raise EngineError(event["error"]["message"], hint="ownweights logs")
                    yield event
        finally:
            connection.close()


def _refused(status: int, body: bytes) -> UserError:
    try:
        message = msgspec.json.decode(body)["error"]["message"]
    except (msgspec.DecodeError, KeyError, TypeError):
        message = body.decode(errors="replace")[:200]
    return UserError(f"{message} (HTTP {status})", hint="ownweights ps")
