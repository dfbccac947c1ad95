"""The gateway: one ASGI application. The door (headers, key), the hot paths, and FastAPI for everything else."""

from __future__ import annotations

import msgspec
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.routing import Route

from serving import proxy
from serving.board import Board, Entry
from serving.keys import Keyring
from serving.metrics import CONTENT_TYPE, Metrics
from serving.parameters import PATHS
from serving.refusal import Refusal, invalid
from serving.relay import Relay
from serving.reply import Reply
from serving.upstream import Patience
from serving.visitor import Limits, Receive, Scope, Send

OPEN_PATHS = frozenset(("/healthz", "/readyz"))
"""Answered without a key: they say that and whether we serve, nothing else."""


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """A model in OpenAI's list, with what is pinned about it."""

    id: str
    object: str = "model"
    created: int
    owned_by: str = "ownweights"
    context_length: int
    """Tokens of one request, prompt and answer together: the window in effect, not the model's own."""
    max_model_len: int
    """The same under vLLM's name."""
    slots: int
    revision: str
    engine: str
    lock: str
    aliases: tuple[str, ...]


class Gateway:
    """Every request passes the door; the hot paths then go straight to the relay."""

    def __init__(self, keyring: Keyring, relay: Relay, routes: FastAPI, metrics: Metrics) -> None:
        self._keyring = keyring
        self._relay = relay
        self._routes = routes
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._admit(scope)
        except Refusal as refusal:
            self._metrics.refused(refusal.status)
            await Reply(send).refuse(refusal, close=True)
        else:
            hot = scope["method"] == "POST" and scope["path"] in PATHS
            await (self._relay if hot else self._routes)(scope, receive, send)

    def _admit(self, scope: Scope) -> None:
        """Decides on ``scope["path"]`` alone: a URL put together from the Host header can be made to lie."""
        headers = scope["headers"]
        proxy.screen(headers)
        if scope["http_version"] == "1.1" and not any(name == b"host" for name, _ in headers):
            raise invalid("the Host header is missing", code="no_host")
        if scope["path"] not in OPEN_PATHS:
            proxy.authorise(headers, self._keyring)


def create_app(
    board: Board, keyring: Keyring, *, limits: Limits | None = None, patience: Patience | None = None
) -> Gateway:
    """The application over ``board``; the fleet may go on writing to it from the same event loop."""
    metrics = Metrics()
    relay = Relay(board, metrics, limits=limits or Limits(), patience=patience or Patience())
    return Gateway(keyring, relay, _routes(board, relay, metrics), metrics)


def uvicorn_config(app: Gateway, *, graceful_s: float) -> uvicorn.Config:
    """Uvicorn as the gateway needs it; the caller binds. Answers under way get ``graceful_s`` at the end."""
    return uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        log_level="error",  # it warns of every malformed request: a log is not for clients to fill
        server_header=False,
        proxy_headers=False,
        backlog=2048,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(graceful_s),
    )


def _routes(board: Board, relay: Relay, metrics: Metrics) -> FastAPI:
    app = FastAPI(
        openapi_url=None, redirect_slashes=False, exception_handlers={Refusal: _refuse, HTTPException: _shape}
    )
    for path in PATHS:
        app.router.routes.append(Route(path, relay, methods=["POST"]))
    _add_states(app, board)
    _add_models(app, board)

    @app.get("/")
    async def about() -> Response:
        return _json({"service": "ownweights", "api": "/v1", "models": "/v1/models", "metrics": "/metrics"})

    @app.get("/metrics")
    async def measures() -> Response:
        metrics.look(board)
        return Response(await run_in_threadpool(metrics.render), media_type=CONTENT_TYPE)

    return app


def _add_states(app: FastAPI, board: Board) -> None:
    @app.get("/healthz")
    async def alive() -> Response:
        return _json({"status": "alive"})

    @app.get("/readyz")
    async def ready() -> Response:
        models = [{"id": entry.served.name, "state": entry.state} for entry in board]
        return _json({"ready": board.ready, "models": models}, status=200 if board.ready else 503)

    @app.get("/status")
    async def status() -> Response:
        """The operator's view: with reasons, which may quote logs and paths, so only for a key."""
        return _json({"ready": board.ready, "models": [_status(entry) for entry in board]})


def _add_models(app: FastAPI, board: Board) -> None:
    @app.get("/v1/models")
    async def models() -> Response:
        return _json({"object": "list", "data": [_listed(entry) for entry in board]})

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> Response:
        entry = board.find(name)
        if entry is None:
            raise proxy.unknown_model(name)
        return _json(_listed(entry))


def _listed(entry: Entry) -> Listed:
    served = entry.served
    return Listed(
        id=served.name,
        created=served.created,
        context_length=served.context_tokens,
        max_model_len=served.context_tokens,
        slots=served.slots,
        revision=served.revision,
        engine=served.engine,
        lock=served.lock,
        aliases=served.aliases,
    )


def _status(entry: Entry) -> dict[str, object]:
    return {
        "id": entry.served.name,
        "state": entry.state,
        "detail": entry.detail,
        "context_tokens": entry.served.context_tokens,
        "slots": entry.served.slots,
        "running": entry.running,
        "queued": entry.queued,
    }


def _json(value: object, *, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status_code=status, media_type="application/json")


async def _refuse(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return Response(error.body, status_code=error.status, media_type="application/json")


_WORDS = {
    404: ("there is nothing at this path", "unknown_path"),
    405: ("this path wants another method", "method_not_allowed"),
}


async def _shape(_request: Request, error: Exception) -> Response:
    """Starlette's own errors (404, 405) in OpenAI's shape, their headers kept."""
    assert isinstance(error, HTTPException)
    message, code = _WORDS.get(error.status_code, (error.detail, None))
    refusal = Refusal(error.status_code, message, code=code)
    return Response(refusal.body, error.status_code, error.headers, "application/json")
