"""One GET: redirects, proxies of the environment, TLS, and secrets for the host they belong to.

By urllib3, not by httpx2 as the Hub's client: it hands on whatever has arrived in one read, where h11 copies 64 KiB
at a time under the interpreter's lock. That is the difference between slower and faster than the stock client, with
the hashing included (tests/speed/pull.py).
"""

from __future__ import annotations

import os
import re
import socket
import threading
from base64 import b64encode
from contextlib import ExitStack, suppress
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes, urljoin, urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

from deploy import __version__, output
from deploy.errors import PlaceError
from deploy.stop import Stop

if TYPE_CHECKING:
    import ssl

    from urllib3 import BaseHTTPResponse, HTTPConnectionPool, PoolManager
    from urllib3.connection import HTTPConnection

CONNECT_S, READ_S = 10, 15
HEAD_S = 60.0
"""For all that comes before a body, redirects included: a header can drip, each byte in time, for ever."""
REDIRECTS = 10
TOKEN = re.compile(r"[!-~]+")


def get(url: str, headers: dict[str, str], stop: Stop) -> tuple[BaseHTTPResponse, str]:
    """The answer, its body still to be read, and the host that gave it. To be closed.

    Authorization is left out once a redirect leads to another scheme, host or port. Raises urllib3's HTTPError,
    also where the body has not begun after ``HEAD_S``, PlaceError for an address that cannot be asked, and Stopped.
    """
    with _Heads(stop) as heads:
        return _followed(url, headers, heads)


def _followed(url: str, headers: dict[str, str], heads: _Heads) -> tuple[BaseHTTPResponse, str]:
    for _ in range(REDIRECTS):
        answer = heads.ask(_pool(url), url, headers)
        location = answer.get_redirect_location()
        if not location:
            return answer, urlsplit(url).netloc
        answer.close()
        there = _joined(url, location)
        if origin(there) != origin(url):
            headers = {name: value for name, value in headers.items() if name != "Authorization"}
        url = bare(there)
    raise PlaceError(f"{urlsplit(url).netloc} redirects and redirects")


class _Heads:
    """Requests whose answers must begin in time, or until they are stopped: http.client itself may never return."""

    def __init__(self, stop: Stop) -> None:
        self._stop = stop
        self._connections: list[HTTPConnection] = []
        self._ended = threading.Event()
        self._ending = ExitStack()

    def __enter__(self) -> _Heads:
        timer = threading.Timer(HEAD_S, self._end)
        timer.daemon = True
        timer.start()
        self._ending.callback(timer.cancel)
        self._ending.enter_context(self._stop.waking(self._end))
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.close()

    def ask(self, manager: PoolManager, url: str, headers: dict[str, str]) -> BaseHTTPResponse:
        """The head of one answer, whatever its status. Raises HTTPError, Stopped."""
        from urllib3.exceptions import HTTPError, ProtocolError

        pool = manager.connection_from_url(url)
        self._watch(pool)
        try:
            answer = manager.request("GET", url, headers=headers, redirect=False, retries=False, preload_content=False)
        except HTTPError:
            if not self._ended.is_set():
                raise
        else:
            # Of a head that was cut off http.client makes an answer too, with whatever had come.
            if not self._ended.is_set():
                return answer
            answer.close()
        self._stop.check()
        raise ProtocolError(f"no answer within {HEAD_S:.0f} s")

    def _watch(self, pool: HTTPConnectionPool) -> None:
        made: Any = pool.ConnectionCls

        def make(*args: Any, **options: Any) -> Any:
            self._connections.append(connection := made(*args, **options))
            return connection

        pool.ConnectionCls = make  # type: ignore[assignment]  # of a class only the call is used

    def _end(self) -> None:
        self._ended.set()
        for connection in list(self._connections):
            # Within TLS through a proxy with TLS it is wrapped once more.
            wire = getattr(connection.sock, "socket", connection.sock)
            if isinstance(wire, socket.socket):
                with suppress(OSError):
                    # Not its own method: that of a TLS socket takes the decryption from under who reads.
                    socket.socket.shutdown(wire, socket.SHUT_RDWR)


def headers(address: str, *, token: bool) -> dict[str, str]:
    """What every request to an address carries: its own user and password, or else the Hub's token if it is meant.

    The token goes by https, or to this machine: on the way to a mirror in plain HTTP anybody could read it.
    Raises PlaceError where huggingface_hub was told to stay offline.
    """
    from huggingface_hub import constants, get_token

    if constants.is_offline_mode():
        raise PlaceError("HF_HUB_OFFLINE is set", hint="unset HF_HUB_OFFLINE")
    made = {"Accept-Encoding": "identity", "User-Agent": f"ownweights/{__version__}"}
    if secret := _basic(address):
        return made | {"Authorization": secret}
    if token and not constants.HF_HUB_DISABLE_IMPLICIT_TOKEN and (found := get_token()):
        if not _is_private(address):
            output.warn(f"the Hub token is not sent to {host(address)}: it would go there in clear text", about="token")
            return made
        if not TOKEN.fullmatch(found):
            # Not left to the client, whose error would quote it.
            raise PlaceError("the Hub token holds characters that no token has", hint="hf auth login")
        made["Authorization"] = f"Bearer {found}"
    return made


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port: a secret for one of them is for no other. Raises PlaceError for what is no address."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    except (ValueError, KeyError):
        port = 0
    if not port or not parts.hostname or re.search(r"[^!-~]", parts.netloc):
        # Not quoted: it may hold a password.
        raise PlaceError("that is no address of a web server: it must begin with http://host or https://host")
    return parts.scheme, parts.hostname, port


def host(url: str) -> str:
    """Host and port, as they may be shown: before an @ there may be a password."""
    return urlsplit(url).netloc.rpartition("@")[2] or url


def bare(url: str) -> str:
    """The address without user and password."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def reason(error: Exception) -> str:
    """A failure of urllib3 in a few words, without the reprs and addresses that it quotes."""
    from urllib3 import exceptions

    if isinstance(error, exceptions.LocationValueError):
        return "the address of a proxy, or one that was redirected to, is malformed"
    cause: BaseException = error
    while following := cause.__cause__ or next((arg for arg in cause.args if isinstance(arg, Exception)), None):
        cause = following
    if isinstance(error, exceptions.ReadTimeoutError):
        return f"no byte came for {READ_S} s"
    if isinstance(cause, exceptions.IncompleteRead):
        return "the connection broke off"
    if isinstance(cause, TimeoutError | exceptions.TimeoutError):
        return f"no connection within {CONNECT_S} s"
    return (cause.strerror if isinstance(cause, OSError) else None) or str(cause) or type(cause).__name__


def _is_private(url: str) -> bool:
    scheme, name, _ = origin(url)
    return scheme == "https" or name == "localhost" or name.startswith("127.") or name == "::1"


def _joined(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        raise PlaceError(f"{urlsplit(url).netloc} redirects to a malformed address") from None


def _pool(url: str) -> PoolManager:
    """Through the proxy that the environment names for this host, if any."""
    import urllib3

    scheme, host, port = origin(url)
    options: dict[str, Any] = {"timeout": urllib3.Timeout(connect=CONNECT_S, read=READ_S)}
    if scheme == "https":
        options["ssl_context"] = _tls()
    proxies = getproxies()
    proxy = proxies.get(scheme) or proxies.get("all")
    if not proxy or proxy_bypass(f"{host}:{port}"):
        return urllib3.PoolManager(**options)
    address = proxy if "://" in proxy else f"http://{proxy}"
    if secret := _basic(address):
        options["proxy_headers"] = {"Proxy-Authorization": secret}
    return urllib3.ProxyManager(bare(address), proxy_ssl_context=_tls(), **options)


@cache
def _tls() -> ssl.SSLContext:
    """Whom the Hub's client trusts, we trust: SSL_CERT_FILE and SSL_CERT_DIR, else the same roots."""
    import httpx2

    return httpx2.create_ssl_context()


def _basic(url: str) -> str | None:
    """The address's user and password as a header says them: any bytes, where urllib3 takes only Latin-1."""
    found = urlsplit(url).netloc.rpartition("@")[0]
    return f"Basic {b64encode(unquote_to_bytes(os.fsencode(found))).decode()}" if found else None
