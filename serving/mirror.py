"""The cache as a Hub: what a lock names and this disk holds, for boxes whose HF_ENDPOINT it is.

Read-only, and by exact name: a request picks an entry of a table, it never becomes a path. What is no longer as it
is locked is not served. The stock client works against it too.
Source: the routes and headers that huggingface_hub 2.4 uses.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from deploy import output, ports
from deploy.errors import UserError
from deploy.lockfile import Lock, Variant
from deploy.weights import verify
from deploy.weights.shelf import Commit, Entry, Shelf

PAGE = 1000
"""Entries per page of a file listing, as the Hub has it."""
BACKLOG = 128
HASHERS = 2
"""Blobs that are hashed at the same time. The other requests have threads of their own."""
GRACE_S = 2
"""So long a transfer may go on when the mirror is ended. Clients continue elsewhere, or later."""


class Content(FileResponse):
    """A file, or the range of it that was asked for."""

    chunk_size = 1 << 20


class Mirror:
    """The ASGI application over a shelf."""

    def __init__(self, shelf: Shelf, page: int = PAGE) -> None:
        self._shelf = shelf
        self._page = page
        self._hashers = ThreadPoolExecutor(HASHERS, thread_name_prefix="hash")
        self._proofs: dict[tuple[Path, tuple[int, ...]], asyncio.Future[str | None]] = {}
        model, content = "/api/models/{owner}/{name}", "/{owner}/{name}/resolve/{revision}/{path:path}"
        self.app = Starlette(
            routes=[
                Route("/api/models", self.models),
                Route(model, self.info),
                Route(f"{model}/refs", self.refs),
                Route(f"{model}/revision/{{revision:path}}", self.info),
                Route(f"{model}/tree/{{revision}}", self.tree),
                Route(f"{model}/tree/{{revision}}/{{path:path}}", self.tree),
                Route(content, self.resolve),
            ],
            exception_handlers={HTTPException: _error},
        )

    async def models(self, request: Request) -> Response:
        return JSONResponse([commit.described(blobs=False) for commit in self._shelf.commits()])

    async def info(self, request: Request) -> Response:
        return JSONResponse(self._commit(request).described(blobs="blobs" in request.query_params))

    async def refs(self, request: Request) -> Response:
        names = self._shelf.branches(self._commit(request).repo)
        branches = [{"name": name, "ref": f"refs/heads/{name}", "targetCommit": names[name]} for name in names]
        return JSONResponse({"branches": branches, "converts": [], "tags": []})

    async def tree(self, request: Request) -> Response:
        """All files below, whether or not ``recursive`` is asked for: folders are not listed."""
        listed = self._commit(request).listed(request.path_params.get("path", ""))
        cursor = request.query_params.get("cursor", "")
        start = _number(cursor, len(listed)) if cursor else 0
        if start is None:
            raise HTTPException(400, "the cursor is none of this listing")
        stop = start + self._page
        more = request.url.include_query_params(cursor=stop)
        return JSONResponse(listed[start:stop], headers={"Link": f'<{more}>; rel="next"'} if stop < len(listed) else {})

    async def resolve(self, request: Request) -> Response:
        commit, path = self._commit(request), request.path_params["path"]
        entry = commit.entries.get(path)
        if entry is None:
            raise _refusal("EntryNotFound", f"`{path}` of {commit.repo} is not in the lock")
        if wrong := await self._wrong(entry):
            output.warn(f"`{path}` of {commit.repo} is not served: it is no longer as locked, but {wrong}", about=path)
            raise _refusal(
                "EntryNotFound", f"`{path}` of {commit.repo} is no longer as it is locked, here on the mirror"
            )
        return Content(entry.blob, headers=_headers(commit, entry), media_type="application/octet-stream")

    async def _wrong(self, entry: Entry) -> str | None:
        """What is there instead of the locked bytes: one stat where it is stamped.

        A blob that was touched is hashed again, once for all who ask for it meanwhile, and holds up nobody else.
        """
        state = await run_in_threadpool(entry.unproved)
        if state is None:
            return None
        key = entry.blob, state
        if key not in self._proofs:
            loop = asyncio.get_running_loop()
            self._proofs[key] = loop.run_in_executor(self._hashers, verify.difference, entry.blob, entry.file)
            self._proofs[key].add_done_callback(lambda _: self._proofs.pop(key))
        # One who leaves does not take it from the others.
        return await asyncio.shield(self._proofs[key])

    def _commit(self, request: Request) -> Commit:
        repo, revision = "{owner}/{name}".format_map(request.path_params), request.path_params.get("revision", "main")
        found = self._shelf.find(repo, revision)
        if found:
            return found
        if self._shelf.has(repo):
            raise _refusal("RevisionNotFound", f"{repo} is not locked at `{revision}`")
        raise _refusal("RepoNotFound", f"{repo} is not in the lock")


def listen(address: str) -> socket.socket:
    """A socket that listens on ``ADDR:PORT``; port 0: any. Raises UserError, and warns where others can reach it."""
    host, _, port = address.rpartition(":")
    host, number = host.strip("[]"), _number(port, 65535)
    if not host or number is None:
        raise UserError(f"`{address[:80]}` is no address to listen on", hint="--listen 127.0.0.1:8765")
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, number))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        holder = ports.holder(host, number) if error.errno == errno.EADDRINUSE else None
        taken = f": {holder} has it" if holder else ""
        raise UserError(
            f"cannot listen: {error.strerror}{taken}", where=address, hint="ownweights mirror --listen 127.0.0.1:8766"
        ) from error
    if not ipaddress.ip_address(listener.getsockname()[0]).is_loopback:
        output.warn(
            "the mirror asks nobody who they are: it serves these weights to everyone who can reach this address"
        )
    return listener


def url(listener: socket.socket) -> str:
    """What HF_ENDPOINT is set to. For a socket on every address: this machine's name."""
    host, port = listener.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:
        host = socket.gethostname()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def servable(locks: tuple[Lock, ...]) -> Iterator[Variant]:
    """What of these locks is on this disk as it is locked. What is there, but cannot be served, is told."""
    named = {
        (variant.tree, variant.origin): (model.name, variant)
        for lock in locks
        for model in lock.models
        for variant in model.variants
    }
    for name, variant in named.values():
        if not verify.present(variant):
            continue
        if variant.origin.kind == "path":
            output.say(f"{name} {variant.key} is a file of this machine, which no Hub knows: not served")
        elif findings := verify.check(variant):
            output.warn(f"{name} {variant.key} is not served: {findings[0]}, of {len(findings)} finding(s)")
        else:
            yield variant


def serve(shelf: Shelf, listener: socket.socket) -> None:
    """Until SIGTERM or Ctrl-C."""
    config = uvicorn.Config(
        Mirror(shelf).app, log_level="warning", lifespan="off", timeout_graceful_shutdown=GRACE_S, server_header=False
    )
    # uvicorn raises the signal that ended it once more: for a server that is no failure.
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listener])


def _number(digits: str, most: int) -> int | None:
    """None: it is none, or larger. Thousands of digits are nothing to int(), which refuses them."""
    if not digits.isdecimal() or len(digits) > len(str(most)):
        return None
    found = int(digits)
    return found if found <= most else None


def _headers(commit: Commit, entry: Entry) -> dict[str, str]:
    etag = f'"{entry.file.blob}"'
    headers = {"ETag": etag, "X-Repo-Commit": commit.commit}
    if entry.is_lfs:
        headers |= {"X-Linked-Etag": etag, "X-Linked-Size": str(entry.file.size)}
    return headers


def _refusal(code: str, message: str) -> HTTPException:
    return HTTPException(404, message, headers={"X-Error-Code": code})


async def _error(request: Request, error: Exception) -> Response:
    """In the Hub's form: the client reads the headers. A path that was asked for must not make any of its own."""
    assert isinstance(error, HTTPException)
    message = "".join(letter if " " <= letter <= "~" else "?" for letter in error.detail)
    headers = {**(error.headers or {}), "X-Error-Message": message}
    return JSONResponse({"error": message}, status_code=error.status_code, headers=headers)
