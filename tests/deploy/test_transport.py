"""One GET: where it goes, through which proxy, and with which secrets."""

from __future__ import annotations

import base64
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
import urllib3

from deploy import transport
from deploy.errors import PlaceError
from deploy.stop import Stop, Stopped
from tests import hubserver
from tests.hubserver import Repo

REPO = Repo("org/tiny", files={"config.json": b"{}"})
PATH = f"/org/tiny/resolve/{REPO.commit}/config.json"


@pytest.fixture
def server() -> Iterator[hubserver.Hub]:
    with hubserver.hub([REPO]) as running:
        yield running


def get(url: str, headers: dict[str, str] | None = None) -> bytes:
    answer, _ = transport.get(url, headers or {}, Stop())
    try:
        return answer.read()
    finally:
        answer.close()


@contextmanager
def endless(start: bytes, piece: bytes) -> Iterator[str]:
    """Its address: a server that sends so many pieces as the other end takes, a hundred in a second."""
    ending = threading.Event()

    def serve() -> None:
        while not ending.is_set():
            with suppress(OSError), listener.accept()[0] as connection:
                connection.recv(1 << 16)
                connection.sendall(start)
                while not ending.wait(0.01):
                    connection.sendall(piece)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/x"
        finally:
            ending.set()
            with suppress(OSError):
                socket.create_connection(listener.getsockname()).close()
            thread.join()


ENDLESS = pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"HTTP/1.1 200 OK\r\nX-Slow: ", b"a"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1", b"0"),
    ],
)


@ENDLESS
@pytest.mark.parametrize("proxy", [False, True])
def test_an_answer_whose_body_never_begins_is_left_in_time(
    monkeypatch: pytest.MonkeyPatch, start: bytes, piece: bytes, proxy: bool
) -> None:
    monkeypatch.setattr(transport, "HEAD_S", 0.3)
    with endless(start, piece) as url:
        if proxy:
            monkeypatch.setenv("http_proxy", url)
            monkeypatch.setenv("no_proxy", "")
        with pytest.raises(urllib3.exceptions.HTTPError) as raised:
            get("http://hub.invalid/x" if proxy else url)
    assert transport.reason(raised.value) == "no answer within 0 s"


@ENDLESS
def test_waiting_for_an_answer_ends_when_it_is_stopped(start: bytes, piece: bytes) -> None:
    stop = Stop()
    with endless(start, piece) as url:
        threading.Timer(0.3, stop.set).start()
        with pytest.raises(Stopped):
            transport.get(url, {}, stop)


def test_redirects_that_never_end_are_left(server: hubserver.Hub) -> None:
    server.fault("*", status=302, headers={"Location": PATH})
    with pytest.raises(PlaceError, match="redirects and redirects"):
        get(server.url + PATH)
    assert len(server.requests) == transport.REDIRECTS


@pytest.mark.parametrize("location", ["ftp://127.0.0.1/x", "file:///etc/passwd", "http://[::1"])
def test_a_redirect_to_what_is_no_web_server_is_refused(server: hubserver.Hub, location: str) -> None:
    server.fault("*", times=1, status=302, headers={"Location": location})
    with pytest.raises(PlaceError):
        get(server.url + PATH)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("https://hub.example/a", "https://hub.example:443/b", True),
        ("https://hub.example", "http://hub.example", False),
        ("http://hub.example", "https://hub.example", False),
        ("https://hub.example", "https://cdn.hub.example", False),
        ("https://hub.example", "https://hub.example:8443", False),
        ("https://hub.example", "https://user@hub.example", True),
    ],
)
def test_scheme_host_and_port_make_an_origin(one: str, other: str, same: bool) -> None:
    assert (transport.origin(one) == transport.origin(other)) is same


def test_a_secret_that_was_left_out_does_not_come_back(server: hubserver.Hub) -> None:
    with hubserver.hub([REPO]) as store:
        server.fault("*", times=1, status=302, headers={"Location": store.url + PATH})
        store.fault("*", times=1, status=302, headers={"Location": server.url + PATH})
        assert get(server.url + PATH, {"Authorization": "Bearer hf_secret"}) == b"{}"
        assert [asked.token for asked in (*server.requests, *store.requests)] == ["Bearer hf_secret", None, None]


def test_the_mirrors_own_password_is_left_out_where_it_redirects_to(server: hubserver.Hub) -> None:
    with hubserver.hub([REPO]) as store:
        server.fault("*", times=1, status=302, headers={"Location": store.url + PATH})
        made = transport.headers(server.url.replace("//", "//user:pass@"), token=False)
        assert get(server.url + PATH, made) == b"{}"
        assert server.requests[0].token == made["Authorization"]
        assert store.requests[0].token is None


@pytest.mark.parametrize(
    ("quoted", "password"),
    [("s%E2%82%ACcret", "s€cret".encode()), ("s%C3%BCcret", "sücret".encode()), ("%FF", b"\xff"), ("a%0Ab", b"a\nb")],
)
def test_a_password_in_any_alphabet_arrives(
    server: hubserver.Hub, monkeypatch: pytest.MonkeyPatch, quoted: str, password: bytes
) -> None:
    basic = "Basic " + base64.b64encode(b"user:" + password).decode()
    address = server.url.replace("//", f"//user:{quoted}@")
    assert transport.headers(address, token=False)["Authorization"] == basic
    monkeypatch.setenv("http_proxy", address)
    monkeypatch.setenv("no_proxy", "elsewhere.example")
    assert get(f"http://hub.invalid{PATH}") == b"{}"


def test_the_mirrors_own_user_and_password_take_the_tokens_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    made = transport.headers("https://us%40er:pass@mirror.example", token=True)
    assert made["Authorization"] == "Basic " + base64.b64encode(b"us@er:pass").decode()
    assert "hf_secret" not in str(made)


def test_the_proxy_of_the_environment_is_used(server: hubserver.Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("no_proxy", "elsewhere.example")
    assert get(f"http://hub.invalid{PATH}") == b"{}"
    assert len(server.requests) == 1


def test_a_proxy_is_told_its_password_and_nobody_else(server: hubserver.Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.url.replace("//", "//user:pass@"))
    assert get(f"http://hub.invalid{PATH}") == b"{}"
    monkeypatch.setenv("http_proxy", "http://user:pass@127.0.0.1:9")
    with pytest.raises(urllib3.exceptions.HTTPError) as raised:
        get(f"http://hub.invalid{PATH}")
    assert "pass" not in transport.reason(raised.value)
    assert "refused" in transport.reason(raised.value)


def test_a_host_of_no_proxy_is_asked_directly(server: hubserver.Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert get(server.url + PATH) == b"{}"


def test_a_failure_is_said_in_a_few_words(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(urllib3.exceptions.HTTPError) as raised:
        get("http://127.0.0.1:9/x")
    assert transport.reason(raised.value) == "Connection refused"
