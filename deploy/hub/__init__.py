"""The only module that asks a Hub what it has: commits, file lists, small files. Big bytes are the puller's.

Spoken through huggingface_hub, which is imported inside the functions (0.2 s). Every failure is one PlaceError.
Sources: huggingface_hub 2.4, whose revision resolve has no retry, whose listings have no time limit and whose
paginated requests carry the token wherever the ``Link`` header points: the client made here mends all three.
"""

from __future__ import annotations

import hashlib
import os
import queue
import threading
import time
from collections.abc import Callable
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

import msgspec

from deploy import lockfile
from deploy.errors import PlaceError
from deploy.hub_errors import Busy, explained, overloaded

if TYPE_CHECKING:
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import ModelInfo, RepoFile

T = TypeVar("T")

DEFAULT_ENDPOINT = "https://huggingface.co"
RETRY_STATUSES = frozenset({429, 500, 502, 503, 504})
BACKOFF_S = (0.5, 1.0, 2.0)
RETRY_AFTER_CAP_S = 30.0
TIMEOUT_S = {"connect": 5.0, "read": 10.0, "write": 10.0, "pool": 10.0}
SMALL_FILE_BYTES = 64 * 1024 * 1024
"""Larger than any tokenizer or index; what claims to be larger is not fetched while locking."""
MAX_FILES = 100_000
"""No model has as many: a listing without end is cut off here."""


class RemoteFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a listing. ``sha256`` is known of LFS files only; ``git`` is then the blob of their pointer."""

    path: str
    size: int
    git: str
    sha256: str | None = None


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A repository at one commit."""

    repo: str
    repo_id: str | None
    requested: str
    commit: str
    license: str | None
    gated: bool
    files: tuple[RemoteFile, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(file.path for file in self.files)

    def file(self, path: str) -> RemoteFile:
        return next(file for file in self.files if file.path == path)


def endpoint() -> str:
    """HF_ENDPOINT as it is now, because huggingface_hub reads it once at its import."""
    return (os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")


def address() -> str:
    """The endpoint as it may be shown: a mirror's user and password left out."""
    scheme, _, rest = endpoint().rpartition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}" if scheme else rest


def resolve(repo: str, revision: str) -> Snapshot:
    """The commit that a branch, tag or commit names now, and its files. Raises PlaceError."""
    from huggingface_hub.hf_api import RepoFile

    api = _api()

    def ask() -> Snapshot:
        info = api.model_info(repo, revision=revision)
        commit = _commit(repo, revision, info)
        found = islice(api.list_repo_tree(repo, revision=commit, recursive=True), MAX_FILES + 1)
        files = tuple(_remote(entry) for entry in found if isinstance(entry, RepoFile))
        _refuse_listing(repo, files)
        tags = [tag.removeprefix("license:") for tag in info.tags or () if tag.startswith("license:")]
        return Snapshot(
            repo=repo,
            repo_id=getattr(info, "_id", None),
            requested=revision,
            commit=commit,
            license=tags[0] if tags else None,
            gated=bool(info.gated),
            files=files,
        )

    return _patiently(ask, repo, revision)


def small_file(repo: str, commit: str, file: RemoteFile) -> bytes:
    """The content of a file, which hashes to what the listing says. Raises PlaceError."""
    if file.size > SMALL_FILE_BYTES:
        raise PlaceError(f"`{file.path}` of `{repo}` has {file.size} bytes, more than a small file may")
    content = _patiently(lambda: _read(repo, commit, file, file.size + 1), repo, commit)
    found = hashlib.sha256(content).hexdigest() if file.sha256 else git_blob(content)
    if found != (file.sha256 or file.git):
        raise PlaceError(
            f"`{file.path}` of `{repo}` is not what the listing says: {file.sha256 or file.git}, found {found}",
            where=address(),
            hint="lock again; if it stays, this Hub or mirror alters files: point HF_ENDPOINT to another",
        )
    return content


def head(repo: str, commit: str, file: RemoteFile, count_bytes: int) -> bytes:
    """The first bytes of a file, or all of a shorter one: for headers, unproved. Raises PlaceError."""
    return _patiently(lambda: _read(repo, commit, file, count_bytes), repo, commit)


def reachable(timeout_s: float = 3.0) -> bool:
    """Whether a Hub answers at the endpoint. No token is sent.

    In a thread, because a name lookup can hang for longer than any socket's time limit.
    """
    _api()
    answer: queue.SimpleQueue[bool] = queue.SimpleQueue()
    threading.Thread(target=lambda: answer.put(_answers()), daemon=True).start()
    try:
        return answer.get(timeout=timeout_s)
    except queue.Empty:
        return False


def git_blob(content: bytes) -> str:
    """Git's name of a blob: sha1 over a header and the content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _commit(repo: str, revision: str, info: ModelInfo) -> str:
    if not info.sha or not lockfile.SHA1.fullmatch(info.sha):
        raise ValueError("no commit in the answer")
    if lockfile.SHA1.fullmatch(revision) and info.sha != revision:
        raise PlaceError(f"asked for commit {revision} of `{repo}`, was given {info.sha}", where=address())
    return info.sha


def _refuse_listing(repo: str, files: tuple[RemoteFile, ...]) -> None:
    if len(files) > MAX_FILES:
        raise PlaceError(f"`{repo}` lists more than {MAX_FILES} files", where=address())
    unsafe = [file.path for file in files if not lockfile.is_safe(file.path)]
    if unsafe:
        raise PlaceError(f"`{repo}` lists an unsafe path: `{unsafe[0]}`", where=address())


def _remote(entry: RepoFile) -> RemoteFile:
    size, sha256 = (entry.lfs.size, entry.lfs.sha256) if entry.lfs else (entry.size, None)
    if size < 0 or not lockfile.SHA1.fullmatch(entry.blob_id) or (sha256 and not lockfile.SHA256.fullmatch(sha256)):
        raise ValueError(f"malformed size or hash of {entry.path!r}")
    return RemoteFile(path=entry.path, size=size, git=entry.blob_id, sha256=sha256)


def _read(repo: str, commit: str, file: RemoteFile, count_bytes: int) -> bytes:
    from huggingface_hub import get_session, hf_hub_url
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]

    url = hf_hub_url(repo, file.path, revision=commit, endpoint=endpoint())
    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
    if count_bytes < file.size:
        headers["Range"] = f"bytes=0-{count_bytes - 1}"
    content = bytearray()
    with get_session().stream("GET", url, headers=headers) as response:
        if response.is_error:
            response.read()
        hf_raise_for_status(response)
        for chunk in response.iter_raw():
            content += chunk
            if len(content) >= count_bytes:
                # A server without Range sends on: what was asked for is here.
                break
    return bytes(content[:count_bytes])


def _answers() -> bool:
    import httpx2
    from huggingface_hub import get_session

    try:
        # An empty listing of any model: cheap, and needs no name that every mirror would have.
        status: int = get_session().get(f"{endpoint()}/api/models", params={"limit": 1}).status_code
    except Busy as busy:
        status = busy.status
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError):
        return False
    # 403 and 407 are a company's proxy talking, 5xx a gateway with no Hub behind it.
    return status < 500 and status not in (403, 407)


@cache
def _client() -> None:
    """Make huggingface_hub's shared client keep our rules, and turn its telemetry off."""
    import httpx2
    from huggingface_hub import constants, set_client_factory

    constants.HF_HUB_DISABLE_TELEMETRY = True
    hooks: dict[str, list[Callable[..., None]]] = {"request": [_guard], "response": [_refuse_busy]}
    set_client_factory(lambda: httpx2.Client(event_hooks=hooks, follow_redirects=True))


def _api() -> HfApi:
    from huggingface_hub import HfApi

    _client()
    return HfApi(endpoint=endpoint())


def _guard(request: httpx2.Request) -> None:
    """Before every request, redirects included: a time limit, and the token for the endpoint's own host only."""
    import httpx2
    from huggingface_hub import constants

    if constants.is_offline_mode():
        raise ConnectionError("HF_HUB_OFFLINE is set")
    request.extensions["timeout"] = TIMEOUT_S
    home, there = httpx2.URL(endpoint()), request.url
    if (there.scheme, there.host, there.port) != (home.scheme, home.host, home.port):
        request.headers.pop("authorization", None)


def _refuse_busy(response: httpx2.Response) -> None:
    if response.status_code in RETRY_STATUSES:
        asked = response.headers.get("retry-after", "").strip()
        raise Busy(response.status_code, float(asked) if asked.isdecimal() else None)


def _patiently(call: Callable[[], T], repo: str, revision: str) -> T:
    """Call it a few times; what stays wrong becomes one PlaceError."""
    import httpx2

    for wait_s in (*BACKOFF_S, None):
        try:
            return call()
        except Busy as busy:
            pause_s = wait_s if busy.retry_after_s is None else busy.retry_after_s
            if wait_s is None or pause_s is None or pause_s > RETRY_AFTER_CAP_S:
                raise overloaded(busy, address()) from None
            time.sleep(pause_s)
        except (httpx2.ReadError, httpx2.RemoteProtocolError) as error:
            if wait_s is None:
                raise explained(error, repo, revision, address()) from None
            time.sleep(wait_s)
        except (OSError, httpx2.HTTPError, httpx2.InvalidURL, ValueError, KeyError, TypeError) as error:
            # Without its cause: the exception of a client may quote the request, and with it the token.
            raise explained(error, repo, revision, address()) from None
    raise AssertionError("the last try returns or raises")
