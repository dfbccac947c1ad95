"""Checks of the Hub: does it answer, is our token known to it, may we have the gated repositories of the lock."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import quote

from deploy import hub, transport
from deploy.checks import Context, Verdict, fail, ok, skip, together, warn
from deploy.checks.project import planned
from deploy.errors import PlaceError
from deploy.hub import client
from deploy.lockfile import Variant

ASK_S = 5.0
LOG_IN = "hf auth login"


class Answer(NamedTuple):
    """The head of what a Hub answers."""

    status: int
    date: datetime | None


def reach(_: Context) -> Verdict:
    if _offline():
        return skip("HF_HUB_OFFLINE is set: no Hub is asked")
    if fault := _no_address():
        return fail(f"HF_ENDPOINT: {fault}", "unset HF_ENDPOINT")
    if hub.reachable():
        return ok(f"{hub.address()} answers")
    return warn(
        f"{hub.address()} does not answer: only weights that another place has can be fetched",
        "export HF_ENDPOINT=https://a.mirror  # or https_proxy=http://a.proxy:port",
    )


def token(_: Context) -> Verdict:
    """Never shown: where it comes from, and whether the Hub knows it. One that it does not know shuts out of all."""
    from huggingface_hub import constants

    source = token_source()
    if source is None:
        return skip("there is none: only gated and private repositories need one")
    if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN:
        return skip(f"the one of {source} is not sent: HF_HUB_DISABLE_IMPLICIT_TOKEN is set")
    if _offline():
        return skip(f"from {source}; HF_HUB_OFFLINE is set: no Hub is asked")
    if _no_address():
        return skip(f"from {source}; HF_ENDPOINT is no Hub's address")
    try:
        sent = transport.headers(hub.endpoint(), token=True).get("Authorization", "")
    except PlaceError as error:
        return fail(f"the one of {source} cannot be sent: {error}", _again(source))
    if sent.startswith("Basic "):
        return skip(f"the one of {source} is not sent: HF_ENDPOINT has a user and password of its own")
    if not sent:
        there = transport.host(hub.endpoint())
        return warn(f"the one of {source} is not sent to {there} in clear text", f"export HF_ENDPOINT=https://{there}")
    return _known(source)


def _known(source: str) -> Verdict:
    answer = ask("/api/whoami-v2", method="GET", token=True) if hub.reachable() else None
    if answer is not None and answer.status == 401:
        return fail(f"{hub.address()} does not know the one of {source}: expired, revoked, mistyped", _again(source))
    known = answer is not None and answer.status == 200
    return ok(f"from {source}, which {hub.address()} {'knows' if known else 'has not confirmed'}")


def _again(source: str) -> str:
    return LOG_IN if "/" in source else f"unset {source}; {LOG_IN}"


def token_source() -> str | None:
    """The variable or the file that the token comes from, in huggingface_hub's order; None: there is none."""
    from huggingface_hub import constants

    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if os.environ.get(variable, "").strip():
            return variable
    with suppress(OSError, UnicodeDecodeError):
        path = Path(constants.HF_TOKEN_PATH)
        if path.read_text(encoding="utf-8").strip():
            return str(path)
    return None


def gated(context: Context) -> Verdict:
    """Repositories whose terms must be accepted first, of what is still to be fetched."""
    from deploy.weights import room

    wanted = {
        variant.origin.repo: variant
        for variant in planned(context)
        if variant.licence and variant.licence.gated and variant.origin.repo and room.unseen((variant,))
    }
    if not wanted:
        return skip("nothing that is gated has to be fetched")
    if _offline() or not hub.reachable():
        if token_source() is None:
            return warn(f"{', '.join(wanted)}: a token will be needed, there is none", LOG_IN)
        return skip(f"{', '.join(wanted)}: the Hub cannot be asked")
    return together(_access(wanted), ok(f"{', '.join(wanted)}: access was given"))


def _access(wanted: dict[str, Variant]) -> Iterator[Verdict]:
    for repo, variant in wanted.items():
        # A gated repository may show its card and licence to everybody.
        weights = max(variant.files, key=lambda file: file.size).path
        answer = ask(f"/{repo}/resolve/{variant.origin.commit}/{quote(weights)}", method="HEAD", token=True)
        if answer is None or answer.status >= 400:
            yield _refused(repo, answer)


def _refused(repo: str, answer: Answer | None) -> Verdict:
    if answer is not None and answer.status in (401, 403):
        return fail(
            f"`{repo}` is gated, and access was not given to us",
            f"{LOG_IN}  # after its terms were accepted with that account: {hub.address()}/{repo}",
        )
    said = f"answers {answer.status}" if answer else "does not answer"
    return warn(f"`{repo}`: {hub.address()} {said} when asked for access", "ownweights doctor  # again, a little later")


def ask(path: str, *, method: Literal["GET", "HEAD"], token: bool) -> Answer | None:
    """The head of the endpoint's answer, redirects not followed; None where none comes in time. Raises PlaceError."""
    headers = transport.headers(hub.endpoint(), token=token)
    url = transport.bare(hub.endpoint()) + path
    answer: queue.SimpleQueue[Answer | None] = queue.SimpleQueue()
    # In a thread, because a name lookup can hang for longer than any socket's time limit.
    threading.Thread(target=lambda: answer.put(_answer(method, url, headers)), daemon=True).start()
    with suppress(queue.Empty):
        return answer.get(timeout=ASK_S)
    return None


def _answer(method: str, url: str, headers: dict[str, str]) -> Answer | None:
    import httpx2

    try:
        with client.client().stream(method, url, headers=headers) as response:
            return Answer(response.status_code, _date(response.headers.get("date", "")))
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError):
        return None


def _date(text: str) -> datetime | None:
    try:
        return parsedate_to_datetime(text)
    except ValueError:
        return None


def _offline() -> bool:
    from huggingface_hub import constants

    return constants.is_offline_mode()


def _no_address() -> str | None:
    """What is wrong with the endpoint as it is written."""
    try:
        transport.origin(hub.endpoint())
    except PlaceError as error:
        return str(error)
    return None
