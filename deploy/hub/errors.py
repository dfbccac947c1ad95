"""What can go wrong between us and a Hub: one PlaceError each, with what to do about it. No token is ever in one."""

from __future__ import annotations

import msgspec

from deploy.errors import GoneError, PlaceError

SHOWN = 120


class Busy(Exception):
    """429 or 5xx. Raised before huggingface_hub's own retries, which would sleep for as long as a server asks."""

    def __init__(self, status: int, retry_after_s: float | None) -> None:
        super().__init__(f"the Hub answered {status}")
        self.status = status
        self.retry_after_s = retry_after_s


def overloaded(busy: Busy, where: str) -> PlaceError:
    wait = "" if busy.retry_after_s is None else f" and asks to wait {busy.retry_after_s:.0f} s"
    limited = "the Hub limits our requests (429)" if busy.status == 429 else f"the Hub answered {busy.status}"
    hint = "wait, or `export HF_TOKEN=...`: a token has its own limit" if busy.status == 429 else "try again later"
    return PlaceError(limited + wait, where=where, hint=hint)


def explained(error: Exception, repo: str, revision: str, where: str) -> PlaceError:
    """The one line for each thing that a Hub can answer, and what to do about it."""
    import httpx2
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        hint = f"accept them at {where}/{repo}, then `export HF_TOKEN=...` with that account's token"
        return PlaceError(f"`{repo}` is gated: its terms must be accepted first", where=where, hint=hint)
    if isinstance(error, errors.RevisionNotFoundError):
        return GoneError(f"`{repo}` has no revision `{revision}`", where=where, hint="name a branch, tag or commit")
    if isinstance(error, errors.RepositoryNotFoundError | errors.HFValidationError):
        hint = "check the spelling; for a private repository `export HF_TOKEN=...`"
        return GoneError(f"`{repo}` does not exist here, or is private", where=where, hint=hint)
    if isinstance(error, errors.EntryNotFoundError):
        hint = "try again: a mirror may lag behind, and a branch may just have moved"
        return PlaceError(f"`{repo}` at {revision} lacks a file that its list names", where=where, hint=hint)
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        hint = "check HF_TOKEN: `unset HF_TOKEN` asks without one" if status in (401, 403) else "check HF_ENDPOINT"
        return PlaceError(f"the Hub answered {status} for `{repo}`", where=where, hint=hint)
    if isinstance(error, OSError | httpx2.TransportError):
        hint = "check the network, or point HF_ENDPOINT to a mirror; pinned models need no Hub: `ownweights models`"
        return PlaceError(f"the Hub cannot be reached: {str(error) or type(error).__name__}", where=where, hint=hint)
    # Only what decoding says: other errors may quote an address, and with it a password.
    what = f": {shown(str(error))}" if isinstance(error, msgspec.MsgspecError) else ""
    hint = "check HF_ENDPOINT and the proxy"
    return PlaceError(f"what answers there is not a Hub{what}", where=where, hint=hint)


def shown(text: str) -> str:
    """Of words that are not ours: one short line in which nothing moves a terminal's cursor."""
    line = text.encode("unicode_escape").decode()
    return line if len(line) <= SHOWN else f"{line[:SHOWN]}…"
