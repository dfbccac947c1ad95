"""The one process that serves: gateway and fleet on one event loop."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
import uvloop

from deploy import paths
from deploy.engine import Engine
from deploy.prepare import Deployment
from serving import gateway, keys, service
from serving.board import Board
from serving.fleet import Fleet

BACKLOG = 2048


class Server(uvicorn.Server):
    """uvicorn raises a caught signal once more when it is done, which would end us before our engines."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield


def run(deployment: Deployment, engines: tuple[Engine, ...]) -> None:
    """Serves until SIGTERM or SIGINT. The port is bound before an engine is started."""
    listener = _bind(deployment.host, deployment.port)
    paths.run_dir(create=True)
    uvloop.run(_serve(deployment, engines, listener))


async def _serve(deployment: Deployment, engines: tuple[Engine, ...], listener: socket.socket) -> None:
    board = Board()
    fleet = Fleet(deployment.plan, board, engines)
    app = gateway.create_app(board, keys.Keyring([keys.operator_key(paths.key_file())]))
    server = Server(gateway.uvicorn_config(app, graceful_s=service.GRACE_S))
    service.record(deployment, os.getpid())
    try:
        await fleet.start()
        await server.serve(sockets=[listener])
    finally:
        await fleet.stop()
        paths.service_file().unlink(missing_ok=True)


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    # A port in TIME_WAIT from our own last run is free; one that is listened on still refuses.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        # From here on a client that comes before the application is up waits instead of being refused.
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise service.port_taken(host, port) from error
    return listener
