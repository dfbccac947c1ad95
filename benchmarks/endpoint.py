"""Which endpoint is measured: the one told, the one deployed here, or the one the environment names."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from benchmarks.client import Endpoint
from deploy import paths
from deploy.errors import UserError

URL_VARIABLE = "OPENAI_BASE_URL"
KEY_VARIABLE = "OPENAI_API_KEY"


class _Service(msgspec.Struct):
    """What is needed of the deployment record."""

    host: str
    port: int


def resolve(url: str | None, key_file: Path | None) -> Endpoint:
    """``--url`` first, then the service deployed here, then OPENAI_BASE_URL. Raises UserError where there is none.

    The operator's key goes to the operator's own service only: with another URL the key is the one of
    ``--key-file`` or OPENAI_API_KEY.
    """
    told = _read_key(key_file) if key_file else None
    if url is None and (service := _service()):
        return Endpoint(base_url=service, key=told or _read_key(paths.key_file()))
    url = url or os.environ.get(URL_VARIABLE)
    if not url:
        raise UserError("nothing is deployed here", where=str(paths.service_file()), hint="make deploy, or --url URL")
    return Endpoint(base_url=normal(url), key=told or os.environ.get(KEY_VARIABLE))


def normal(url: str) -> str:
    """Without a trailing slash; /v1 where no path was given. Raises UserError if it is no http URL."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(f"`{url}` is not an http:// or https:// URL", where="--url")
    if parts.username or parts.password:
        raise UserError("the URL holds a password, which would be written into the result", hint="--key-file FILE")
    return url.rstrip("/") + ("" if parts.path.strip("/") else "/v1")


def is_here(base_url: str) -> bool:
    """Whether it is a loopback address, hence this machine's hardware (a tunnel would fool this)."""
    host = urlsplit(base_url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _service() -> str | None:
    try:
        service = msgspec.json.decode(paths.service_file().read_bytes(), type=_Service)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise UserError(
            f"the record of the running service cannot be read: {error}",
            where=str(paths.service_file()),
            hint="make deploy",
        ) from error
    return f"http://{_reachable(service.host)}:{service.port}/v1"


def _reachable(host: str) -> str:
    """A server that listens everywhere is asked on loopback."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.is_unspecified:
        return "127.0.0.1" if address.version == 4 else "[::1]"
    return host if address.version == 4 else f"[{host}]"


def _read_key(path: Path) -> str:
    try:
        key = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the key cannot be read: {error}", where=str(path), hint="--key-file FILE") from error
    if not key.isascii() or not key.isprintable() or not key:
        raise UserError("the key file does not hold a key: printable ASCII on one line", where=str(path))
    return key
