"""What cannot be answered: the right status, in OpenAI's shape, streamed or not, and nothing broken after it."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from tests.conformance.endpoint import MODEL, Endpoint, user

# A limit, so that a request that is wrongly answered at least ends.
PATHS = {
    "/chat/completions": {"messages": user("Say hello."), "max_tokens": 4},
    "/completions": {"prompt": "Once", "max_tokens": 4},
}


def error(response: httpx2.Response, status: int) -> dict[str, Any]:
    """The OpenAI error object of a response with that status."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"].startswith("application/json")
    (found,) = response.json().values()
    assert isinstance(found["message"], str)
    assert {"message", "type", "param", "code"} <= set(found)
    return dict(found)


@pytest.fixture
def client(endpoint: Endpoint) -> Any:
    with endpoint.connect() as connected:
        yield connected


@pytest.fixture(params=[False, True], ids=["whole", "stream"])
def stream(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.mark.parametrize("path", PATHS)
def test_unknown_model(client: httpx2.Client, path: str, stream: bool) -> None:
    response = client.post(path, json={"model": "nobody", "stream": stream, **PATHS[path]})
    assert error(response, 404)["code"] == "model_not_found"


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer wrong"}, {"authorization": "Basic wrong"}], ids=str)
@pytest.mark.parametrize("path", PATHS)
def test_wrong_key(endpoint: Endpoint, path: str, headers: dict[str, str]) -> None:
    with endpoint.connect(headers) as stranger:
        assert error(stranger.post(path, json={"model": MODEL, **PATHS[path]}), 401)["code"] == "invalid_api_key"
        assert error(stranger.get("/models"), 401)["code"] == "invalid_api_key"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"model": "chat", "messages": [', b"[]", b'"chat"', b"\xff\xfe", b"{}"], ids=repr
)
def test_bad_body(client: httpx2.Client, path: str, body: bytes) -> None:
    error(client.post(path, content=body, headers={"content-type": "application/json"}), 400)


@pytest.mark.parametrize("path", PATHS)
def test_prompt_over_the_window(endpoint: Endpoint, client: httpx2.Client, path: str, stream: bool) -> None:
    """Never a silent cut: 400 with the code that clients look for, and the next request is answered."""
    text = "word " * endpoint.context_tokens
    prompt = {"messages": user(text)} if path == "/chat/completions" else {"prompt": text}
    response = client.post(path, json={"model": MODEL, "stream": stream, "max_tokens": 4, **prompt})
    found = error(response, 400)
    assert found["code"] == "context_length_exceeded"
    assert str(endpoint.context_tokens) in found["message"]
    assert endpoint.chat("Say hello.", max_tokens=1).status == 200


def test_unknown_path(client: httpx2.Client) -> None:
    error(client.post("/nothing", json={}), 404)


def test_models(client: httpx2.Client, endpoint: Endpoint) -> None:
    """The list says the window that is really served."""
    listing = client.get("/models").json()
    assert listing["object"] == "list"
    rows = {row["id"]: row for row in listing["data"]}
    assert rows[MODEL]["object"] == "model"
    assert rows[MODEL]["owned_by"]
    assert rows[MODEL]["created"] > 0
    assert endpoint.context_tokens in rows[MODEL].values()
