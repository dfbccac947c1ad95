"""A local Hub: the part of the Hub's HTTP interface that clients use, with a request log and faults on demand.

    with hub([Repo("org/tiny", files={"config.json": b"{}", "model.safetensors": weights})]) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        server.fault("*/model.safetensors", flip=7)

Faults are matched against the request path in the order given; one that has used up its ``times`` is skipped.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatch

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from tests.hubrepo import Blob, Repo


@dataclass
class Fault:
    """What goes wrong on matching paths. ``times`` counts down; None: always."""

    path: str
    times: int | None = None
    status: int | None = None
    """Answer this instead, with ``headers``."""
    headers: dict[str, str] = field(default_factory=dict)
    """Added to the answer, or put in place of its own: a redirect, a Retry-After, a Link."""
    flip: int | None = None
    """Invert the byte at this offset of the file."""
    cut: int | None = None
    """Break the connection after this many bytes of the body."""
    stall: bool = False
    """Say nothing until the server stops."""
    whole: bool = False
    """Answer with the whole file, whatever range of it was asked for."""


@dataclass(frozen=True)
class Asked:
    """One line of the request log."""

    method: str
    path: str
    range: str | None
    status: int
    token: str | None
    """The Authorization header as received."""


class Hub:
    """The ASGI application, its log (``requests``) and its faults."""

    def __init__(self, repos: Iterable[Repo], page: int) -> None:
        self.url = ""
        self.repos = {repo.id: repo for repo in repos}
        self.requests: list[Asked] = []
        self.faults: list[Fault] = []
        self.page = page
        self.app = Starlette(
            routes=[
                Route("/api/models", self.models),
                Route("/api/models/{owner}/{name}", self.info),
                Route("/api/models/{owner}/{name}/revision/{revision:path}", self.info),
                Route("/api/models/{owner}/{name}/tree/{revision}", self.tree),
                Route("/{owner}/{name}/resolve/{revision}/{path:path}", self.resolve),
            ]
        )

    def fault(self, path: str, *, times: int | None = None, **what: object) -> None:
        """Inject a fault from now on: ``fault("*/resolve/*", times=2, status=429, headers={"Retry-After": "0"})``."""
        self.faults.append(Fault(path, times, **what))  # type: ignore[arg-type]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope)
        fault = scope["fault"] = self._due(request.url.path)

        async def log(message: Message) -> None:
            if message["type"] == "http.response.start":
                if fault.headers:
                    kept = [(key, value) for key, value in message["headers"] if key.decode() not in _lower(fault)]
                    added = [(key.encode(), value.encode()) for key, value in _lower(fault).items()]
                    message = {**message, "headers": kept + added}
                self._note(request, message["status"])
            await send(message)

        if fault.stall:
            self._note(request, 0)
            await asyncio.Event().wait()
        answer = self.app if fault.status is None else Response(status_code=fault.status)
        await answer(scope, receive, log)

    async def models(self, request: Request) -> Response:
        return JSONResponse([repo.info() for repo in self.repos.values()])

    async def info(self, request: Request) -> Response:
        repo = self._repo(request)
        return repo if isinstance(repo, Response) else JSONResponse(repo.info())

    async def tree(self, request: Request) -> Response:
        repo = self._repo(request)
        if isinstance(repo, Response):
            return repo
        start = int(request.query_params.get("cursor", 0))
        paths = sorted(repo.blobs)
        more = request.url.include_query_params(cursor=start + self.page)
        return JSONResponse(
            [repo.entry(path) for path in paths[start : start + self.page]],
            headers={"Link": f'<{more}>; rel="next"'} if start + self.page < len(paths) else None,
        )

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
        repo = self.repos.get("{owner}/{name}".format_map(request.path_params))
        if repo is None:
            return _error(404, "RepoNotFound")
        if request.path_params.get("revision", "main") not in ("main", repo.commit):
            return _error(404, "RevisionNotFound")
        return repo

    def _due(self, path: str) -> Fault:
        for fault in self.faults:
            if fnmatch(path, fault.path) and fault.times != 0:
                if fault.times is not None:
                    fault.times -= 1
                return fault
        return Fault(path)

    def _note(self, request: Request, status: int) -> None:
        headers = request.headers
        asked = Asked(request.method, request.url.path, headers.get("range"), status, headers.get("authorization"))
        self.requests.append(asked)


@contextmanager
def hub(repos: Iterable[Repo], *, page: int = 1000) -> Iterator[Hub]:
    """A Hub on a loopback port while the block runs. ``page``: entries per page of a file listing."""
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
    start, stop, status = 0, blob.size, 200
    asked = request.headers.get("range")
    if asked and not request.scope["fault"].whole:
        first, _, last = asked.removeprefix("bytes=").partition("-")
        start, stop, status = int(first), min(int(last) + 1 if last else blob.size, blob.size), 206
        if start >= blob.size:
            return Response(status_code=416, headers={"Content-Range": f"bytes */{blob.size}"})
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{blob.size}"
    headers["Content-Length"] = str(stop - start)
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers)
    return StreamingResponse(
        _body(blob, start, stop, request.scope["fault"]),
        status_code=status,
        headers=headers,
        media_type="application/octet-stream",
    )


async def _body(blob: Blob, start: int, stop: int, fault: Fault) -> AsyncIterator[bytes]:
    """A body that ends before its Content-Length makes uvicorn close the connection: that is the cut."""
    if fault.cut is not None:
        stop = min(stop, start + fault.cut)
    at = start
    for chunk in blob.read(start, stop):
        yield chunk if fault.flip is None else _flipped(chunk, fault.flip - at)
        at += len(chunk)


def _flipped(chunk: bytes, offset: int) -> bytes:
    if not 0 <= offset < len(chunk):
        return chunk
    return chunk[:offset] + bytes([chunk[offset] ^ 0xFF]) + chunk[offset + 1 :]


def _lower(fault: Fault) -> dict[str, str]:
    return {key.lower(): value for key, value in fault.headers.items()}


def _error(status: int, code: str) -> Response:
    return Response(status_code=status, headers={"X-Error-Code": code, "X-Error-Message": code})
