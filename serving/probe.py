"""The only proof that an engine works: one generated token. Its /health answers long before and long after that."""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import Any, NamedTuple

import msgspec

from serving import upstream


class Outcome(Enum):
    """What came of a probe."""

    TOKEN = "token"
    LOADING = "loading"
    """Nobody listens yet, or it says itself that it is not ready."""
    SILENT = "silent"
    """Nothing within the deadline."""
    BROKEN = "broken"
    """An answer, but no token."""
    UNTRIED = "untried"
    """We could not even ask, for want of something of our own: file descriptors, memory."""


class Verdict(NamedTuple):
    """``detail`` says why it is no token."""

    outcome: Outcome
    detail: str = ""


async def one_token(socket: str, model: str, *, deadline_s: float) -> Verdict:
    """Ask the engine for one token of any text."""
    body = {"model": model, "prompt": "1", "max_tokens": 1, "temperature": 0, "stream": False}
    message = upstream.request("/v1/completions", msgspec.json.encode(body), "probe")
    try:
        async with asyncio.timeout(deadline_s):
            status, answer = await _exchange(socket, message, deadline_s)
    except TimeoutError:
        return Verdict(Outcome.SILENT, f"no answer within {deadline_s:.0f} s")
    except upstream.ConnectFailed as error:
        return Verdict(_unconnected(error.__cause__), f"no connection: {error}")
    except upstream.Silent as error:
        return Verdict(Outcome.SILENT, str(error))
    except upstream.UpstreamError as error:
        return Verdict(Outcome.BROKEN, str(error))
    if status == 503:
        return Verdict(Outcome.LOADING, "it is still loading")
    if status == 200 and _has_token(answer):
        return Verdict(Outcome.TOKEN)
    return Verdict(Outcome.BROKEN, f"HTTP {status}: {answer[:200].decode(errors='replace')}")


def _unconnected(cause: BaseException | None) -> Outcome:
    match cause:
        case ConnectionRefusedError() | FileNotFoundError():
            return Outcome.LOADING
        case TimeoutError() | BlockingIOError():  # its queue of connections is full
            return Outcome.SILENT
        case _:
            return Outcome.UNTRIED


async def _exchange(socket: str, message: bytes, deadline_s: float) -> tuple[int, bytes]:
    patience = upstream.Patience(connect_s=deadline_s, first_byte_s=deadline_s, idle_s=deadline_s)
    exchange = await upstream.send(socket, message, patience)
    try:
        parts = []
        while part := await exchange.read():
            parts.append(part)
        return exchange.status, b"".join(parts)
    finally:
        exchange.close()


def _has_token(answer: bytes) -> bool:
    """Text may be empty, where the one token is the end of the text: the count decides."""
    try:
        found: Any = msgspec.json.decode(answer)
        return bool(found["choices"]) and int(found["usage"]["completion_tokens"]) >= 1
    except (msgspec.DecodeError, KeyError, TypeError, ValueError):
        return False
