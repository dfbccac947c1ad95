"""The only module that asks a Hub what it has: commits, file lists, small files. Big bytes are the puller's.

What a Hub says is decoded strictly and believed in nothing but its hashes. Every failure is one PlaceError.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterable
from functools import cached_property, partial
from urllib.parse import quote

import msgspec

from deploy import digests, transport
from deploy.errors import PlaceError
from deploy.hub import client, listing
from deploy.hub.client import Question

DEFAULT_ENDPOINT = "https://huggingface.co"
SMALL_FILE_BYTES = 64 * 1024 * 1024
"""Larger than any tokenizer or index; what claims to be larger is not fetched while locking."""
SMALL_FILES_BYTES = 4 * SMALL_FILE_BYTES
"""The same for all that are fetched at once."""
SMALL_FILES_S = 300.0
SLACK_BYTES = 1024 * 1024
"""For answers that are errors, and for what arrives together with the last byte that is wanted."""
LISTING_BYTES = 128 * 1024 * 1024
LISTING_S = 120.0
REMEMBERED_S = 5.0


class RemoteFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a listing. ``sha256`` is known of LFS files only; ``git`` is then the blob of their pointer.

    ``xet`` is the hash under which the Hub's content store has it in chunks.
    """

    path: str
    size: int
    git: str
    sha256: str | None = None
    xet: str | None = None


class Snapshot(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """A repository at one commit. ``license_name`` is what its card calls a licence that has no identifier."""

    repo: str
    repo_id: str | None
    requested: str
    commit: str
    license: str | None
    license_name: str | None = None
    gated: bool
    files: tuple[RemoteFile, ...]

    @cached_property
    def by_path(self) -> dict[str, RemoteFile]:
        return {file.path: file for file in self.files}

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(self.by_path)

    def file(self, path: str) -> RemoteFile:
        """Raises KeyError."""
        return self.by_path[path]


def endpoint() -> str:
    """HF_ENDPOINT as it is now, because huggingface_hub reads it once at its import."""
    return (os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")


def address() -> str:
    """The endpoint as it may be shown: a mirror's user and password left out."""
    try:
        transport.origin(endpoint())
    except PlaceError:
        # No address of a web server: where a password in it ends is anybody's guess.
        return endpoint().rpartition("@")[2]
    return transport.bare(endpoint())


def resolve(repo: str, revision: str, *, clock: Callable[[], float] = time.monotonic) -> Snapshot:
    """The commit that a branch, tag or commit names now, and its files. Raises PlaceError.

    At most two minutes and 128 MiB of answers, whatever the Hub does; ``clock`` tells those minutes.
    """
    question = _question(repo, revision, LISTING_S, LISTING_BYTES, clock)
    (found,) = question.in_time([partial(_resolve, question)])
    return found


def small_file(repo: str, commit: str, file: RemoteFile) -> bytes:
    """The content of a file, which hashes to what the listing says. Raises PlaceError."""
    return small_files(repo, commit, [file])[file.path]


def small_files(repo: str, commit: str, files: Iterable[RemoteFile]) -> dict[str, bytes]:
    """The contents by path, each of which hashes to what the listing says, several fetched at once.

    At most 64 MiB each and 256 MiB together, in five minutes. Raises PlaceError.
    """
    wanted = tuple(files)
    for file in wanted:
        if file.size > SMALL_FILE_BYTES:
            message = f"`{file.path}` of `{repo}` has {file.size} bytes, more than a small file may"
            raise PlaceError(message, where=address())
    total = sum(file.size for file in wanted)
    if total > SMALL_FILES_BYTES:
        message = f"the small files of `{repo}` have {total} bytes, more than {SMALL_FILES_BYTES}"
        raise PlaceError(message, where=address())
    question = _question(repo, commit, SMALL_FILES_S, _with_retries(total))
    calls = [partial(_whole, question, file) for file in wanted]
    contents = question.in_time(calls) if calls else []
    return {file.path: content for file, content in zip(wanted, contents, strict=True)}


def part(repo: str, commit: str, file: RemoteFile, start: int, stop: int) -> bytes:
    """The bytes [start, stop) of a file, unproved: for headers. Raises PlaceError where not exactly these come."""
    question = _question(repo, commit, SMALL_FILES_S, _with_retries(stop - start))
    ranged = (start, stop) != (0, file.size)
    (content,) = question.in_time([partial(question.read, _url(question, file), start, stop, ranged=ranged)])
    if len(content) != stop - start:
        raise PlaceError(
            f"`{file.path}` of `{repo}` ends at byte {start + len(content)} of {file.size}", where=address()
        )
    return content


def reachable(timeout_s: float = 3.0) -> bool:
    """Whether a Hub answers at the endpoint, as known for a few seconds. No token is sent."""
    home = endpoint()
    asked_s, answer = _reached.get(home, (float("-inf"), False))
    if time.monotonic() - asked_s > REMEMBERED_S:
        answer = _answers(home, timeout_s)
        _reached[home] = (time.monotonic(), answer)
    return answer


_reached: dict[str, tuple[float, bool]] = {}
"""When each endpoint was asked, and what came of it."""


def git_blob(content: bytes) -> str:
    """Git's name of a blob."""
    name = digests.git_blob(len(content))
    name.update(content)
    return name.hexdigest()


def _question(
    repo: str, revision: str, limit_s: float, limit_bytes: int, clock: Callable[[], float] = time.monotonic
) -> Question:
    return Question(
        repo,
        revision,
        home=endpoint(),
        where=address(),
        limit_s=limit_s,
        limit_bytes=limit_bytes,
        clock=clock,
    )


def _with_retries(count_bytes: int) -> int:
    return 4 * count_bytes + SLACK_BYTES


def _resolve(question: Question) -> Snapshot:
    info = listing.info(question)
    return Snapshot(
        repo=question.repo,
        repo_id=info.id,
        requested=question.revision,
        commit=info.sha,
        license=info.license,
        license_name=info.license_name,
        gated=bool(info.gated),
        files=tuple(map(_remote, listing.files(question, info.sha))),
    )


def _remote(entry: listing.Entry) -> RemoteFile:
    size, sha256 = (entry.lfs.size, entry.lfs.oid) if entry.lfs else (entry.size, None)
    return RemoteFile(path=entry.path, size=size, git=entry.oid, sha256=sha256, xet=entry.xet)


def _url(question: Question, file: RemoteFile) -> str:
    return f"{question.home}/{question.repo}/resolve/{question.revision}/{quote(file.path)}"


def _whole(question: Question, file: RemoteFile) -> bytes:
    """One byte more than there should be is asked for: a longer file is not the listed one."""
    content = question.read(_url(question, file), 0, file.size + 1, ranged=False)
    listed = file.sha256 or file.git
    found = digests.of_bytes(content) if file.sha256 else git_blob(content)
    if found != listed:
        raise PlaceError(
            f"`{file.path}` of `{question.repo}` is not what the listing says: {listed}, found {found}",
            where=question.where,
            hint="lock again; if it stays, this Hub or mirror alters files: point HF_ENDPOINT to another",
        )
    return content


def _answers(home: str, timeout_s: float) -> bool:
    """In a thread, because a name lookup can hang for longer than any socket's time limit."""
    answer: queue.SimpleQueue[bool] = queue.SimpleQueue()
    threading.Thread(target=lambda: answer.put(client.answers(home)), daemon=True).start()
    try:
        return answer.get(timeout=timeout_s)
    except queue.Empty:
        return False
