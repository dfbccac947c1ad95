"""A local Hub: the part of the Hub's HTTP interface that clients use, with a request log and faults on demand.

    with hub([Repo("org/tiny", files={"config.json": b"{}", "model.safetensors": weights})]) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        server.fault("*/model.safetensors", flip=7)

Faults are matched against the request path in the order given; one that has used up its ``times`` is skipped.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from urllib.parse import parse_qs

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from tests.hubfaults import Asked, Fault, Wire
from tests.hubrepo import Blob, Repo

RANGE = re.compile(r"bytes=(\d*)-(\d*)")


class Hub:
    """The ASGI application, its log (``requests``) and its faults."""

    def __init__(self, repos: Iterable[Repo], page: int) -> None:
        self.url = ""
        self.revisions: dict[str, dict[str, Repo]] = {}
        """Of each repository, what its branches, tags and commits name. Deleting an entry is deleting it there."""
        self.requests: list[Asked] = []
        self.faults: list[Fault] = []
        self.page = page
        for repo in repos:
            self.move(repo)
        self.app = Starlette(
            routes=[
                Route("/api/whoami-v2", self.whoami),
                Route("/api/models", self.models),
                Route("/api/models/{owner}/{name}", self.info),
                Route("/api/models/{owner}/{name}/refs", self.refs),
                Route("/api/models/{owner}/{name}/revision/{revision:path}", self.info),
                Route("/api/models/{owner}/{name}/tree/{revision}", self.tree),
                Route("/api/models/{owner}/{name}/tree/{revision}/{path:path}", self.tree),
                Route("/api/models/{owner}/{name}/paths-info/{revision}", self.paths_info, methods=["POST"]),
                Route("/{owner}/{name}/resolve/{revision}/{path:path}", self.resolve),
            ]
        )

    def move(self, repo: Repo, branch: str = "main") -> None:
        """Let a branch or tag name this commit from now on. Earlier commits of the repository stay reachable."""
        self.revisions.setdefault(repo.id, {}).update({branch: repo, repo.commit: repo})

    def fault(self, path: str, *, times: int | None = None, **what: object) -> None:
        """Inject a fault from now on: ``fault("*/resolve/*", times=2, status=429, headers={"Retry-After": "0"})``."""
        self.faults.append(Fault(path, times, **what))  # type: ignore[arg-type]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope)
        fault = scope["fault"] = self._due(request.url.path)
        headers = request.headers
        asked = Asked(request.method, request.url.path, headers.get("range"), 0, headers.get("authorization"))
        answer = self.app if fault.status is None else _said(fault)
        if fault.stall and fault.cut is None:
            self.requests.append(asked)
            await asyncio.Event().wait()
        await answer(scope, receive, Wire(send, fault, asked, self.requests))

    async def whoami(self, request: Request) -> Response:
        known = "authorization" in request.headers
        return JSONResponse({"type": "user", "name": "someone", "orgs": []}) if known else Response(status_code=401)

    async def models(self, request: Request) -> Response:
        return JSONResponse([named["main"].info() for named in self.revisions.values()])

    async def info(self, request: Request) -> Response:
        repo = self._repo(request)
        return repo if isinstance(repo, Response) else JSONResponse(repo.info(blobs="blobs" in request.query_params))

    async def refs(self, request: Request) -> Response:
        repo = self._repo(request)
        if isinstance(repo, Response):
            return repo
        branches = [
            {"name": name, "ref": f"refs/heads/{name}", "targetCommit": named.commit}
            for name, named in self.revisions[repo.id].items()
            if name != named.commit
        ]
        return JSONResponse({"branches": branches, "converts": [], "tags": []})

    async def tree(self, request: Request) -> Response:
        repo = self._repo(request)
        if isinstance(repo, Response):
            return repo
        query, folder = request.query_params, request.path_params.get("path", "")
        entries = repo.entries(folder, recursive=query.get("recursive", "").lower() == "true")
        start = int(query.get("cursor", 0))
        more = request.url.include_query_params(cursor=start + self.page)
        return JSONResponse(
            entries[start : start + self.page],
            headers={"Link": f'<{more}>; rel="next"'} if start + self.page < len(entries) else None,
        )

    async def paths_info(self, request: Request) -> Response:
        repo = self._repo(request)
        if isinstance(repo, Response):
            return repo
        body = (await request.body()).decode()
        is_json = "json" in request.headers.get("content-type", "")
        paths = json.loads(body)["paths"] if is_json else parse_qs(body).get("paths", [])
        return JSONResponse([entry for entry in repo.entries() if entry["path"] in paths])

    async def resolve(self, request: Request) -> Response:
        repo = self._repo(request)
        if isinstance(repo, Response):
            return repo
        path = request.path_params["path"]
        if path not in repo.blobs:
            return _error(404, "EntryNotFound")
        if repo.gated and "authorization" not in request.headers:
            return _error(403, "GatedRepo")
        blob, etag = repo.blobs[path], repo.etag(path)
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": repo.commit, "Accept-Ranges": "bytes"}
        if repo.is_lfs(path):
            headers |= {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(blob.size)}
        return _content(request, blob, headers)

    def _repo(self, request: Request) -> Repo | Response:
        named = self.revisions.get("{owner}/{name}".format_map(request.path_params))
        if not named:
            return _error(404, "RepoNotFound")
        return named.get(request.path_params.get("revision", "main")) or _error(404, "RevisionNotFound")

    def _due(self, path: str) -> Fault:
        for fault in self.faults:
            if fnmatch(path, fault.path) and fault.times != 0:
                if fault.times is not None:
                    fault.times -= 1
                return fault
        return Fault(path)


@contextmanager
def hub(repos: Iterable[Repo], *, page: int = 1000) -> Iterator[Hub]:
    """A Hub on a loopback port while the block runs. ``page``: entries per page of a file listing.

    Of several commits of one repository the last one is ``main``.
    """
    server = Hub(repos, page)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        # Listening before the thread starts: the first request waits in the queue, nobody has to poll.
        listener.listen()
        server.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        runner = uvicorn.Server(uvicorn.Config(server, log_level="critical", lifespan="off"))
        thread = threading.Thread(target=runner.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield server
        finally:
            # Not gracefully: a stalled answer would wait for ever.
            runner.should_exit = runner.force_exit = True
            thread.join()


def _content(request: Request, blob: Blob, headers: dict[str, str]) -> Response:
    fault: Fault = request.scope["fault"]
    if fault.other is not None:
        blob = Blob(fault.other)
    end = blob.size - fault.short
    claimed = blob.size if fault.lying else end
    start, stop = 0, claimed
    asked = None if fault.whole else RANGE.fullmatch(request.headers.get("range", ""))
    if asked:
        first, last = asked.groups()
        start = int(first) if first else max(0, claimed - int(last))
        stop = min(int(last) + 1, claimed) if first and last else claimed
        if start >= claimed:
            return Response(status_code=416, headers={"Content-Range": f"bytes */{claimed}"})
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{claimed}"
    if not fault.endless:
        headers["Content-Length"] = str(stop - start)
    status = 206 if asked else 200
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers)
    body = _body(blob, start, min(stop, end), fault)
    return StreamingResponse(body, status_code=status, headers=headers, media_type="application/octet-stream")


async def _body(blob: Blob, start: int, stop: int, fault: Fault) -> AsyncIterator[bytes | memoryview]:
    """A body that ends before its Content-Length makes uvicorn close the connection."""
    at = start
    for chunk in blob.read(start, stop):
        yield chunk if fault.flip is None else _flipped(chunk, fault.flip - at)
        at += len(chunk)
    while fault.endless:
        yield bytes(1 << 16)


def _flipped(chunk: bytes | memoryview, offset: int) -> bytes | memoryview:
    if not 0 <= offset < len(chunk):
        return chunk
    return bytes(chunk[:offset]) + bytes([chunk[offset] ^ 0xFF]) + bytes(chunk[offset + 1 :])


def _said(fault: Fault) -> Response:
    """The answer that is a status, some headers and perhaps a body, whatever was asked for."""
    assert fault.status is not None
    if fault.other is None:
        return Response(status_code=fault.status)
    blob = Blob(fault.other)
    headers = {"Content-Length": str(blob.size)}
    return StreamingResponse(_body(blob, 0, blob.size, fault), status_code=fault.status, headers=headers)


def _error(status: int, code: str) -> Response:
    return Response(status_code=status, headers={"X-Error-Code": code, "X-Error-Message": code})
