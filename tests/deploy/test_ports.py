"""Ports, with real sockets on loopback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from deploy import ports
from deploy.errors import UserError

LISTEN = """
import socket, sys
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
sys.stdin.read()
"""


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_a_port_that_someone_listens_on_is_not_free(listening: socket.socket) -> None:
    port = listening.getsockname()[1]
    assert not ports.free("127.0.0.1", port)
    assert not ports.free("0.0.0.0", port)
    assert not ports.free("localhost", port)


def test_a_port_that_nobody_listens_on_is_free_and_stays_free() -> None:
    port = closed_port()
    assert ports.free("127.0.0.1", port)
    assert ports.free("127.0.0.1", port)
    assert ports.holder("127.0.0.1", port) is None


def test_a_connection_in_time_wait_does_not_hold_the_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = int(listener.getsockname()[1])
        with socket.create_connection(("127.0.0.1", port)) as client:
            served, _ = listener.accept()
            # The side that closes first keeps the port in TIME_WAIT.
            served.close()
            assert client.recv(1) == b""
    assert any(found.laddr.port == port for found in psutil.net_connections("tcp") if found.laddr)
    assert ports.free("127.0.0.1", port)


def test_a_connection_that_outlives_its_listener_does_not_hold_the_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = int(listener.getsockname()[1])
        client = socket.create_connection(("127.0.0.1", port))
        served, _ = listener.accept()
    with client, served:
        assert ports.holder("127.0.0.1", port) is None
        assert ports.free("127.0.0.1", port)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_the_holder_is_named(listening: socket.socket, host: str) -> None:
    name = Path("/proc/self/comm").read_text().strip()
    assert ports.holder(host, listening.getsockname()[1]) == f"pid {os.getpid()} ({name})"


def test_a_listener_on_every_address_holds_each_of_them() -> None:
    with socket.create_server(("0.0.0.0", 0)) as listener:
        assert ports.listener("127.0.0.1", listener.getsockname()[1]) is not None


def test_a_listener_on_another_address_is_not_the_holder(listening: socket.socket) -> None:
    port = listening.getsockname()[1]
    assert ports.free("127.0.0.2", port)
    assert ports.holder("127.0.0.2", port) is None


def test_another_process_is_found() -> None:
    with subprocess.Popen([sys.executable, "-c", LISTEN], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        port = int(child.stdout.readline())
        found = ports.listener("127.0.0.1", port)
        child.communicate()
    assert found is not None
    assert found.pid == child.pid


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 70, "192.0.2.1"])
def test_a_host_that_is_not_of_this_machine(host: str) -> None:
    with pytest.raises(UserError) as caught:
        ports.free(host, 8000)
    assert caught.value.where == f"{host}:8000"
    assert caught.value.hint is not None
    assert "[server] host" in caught.value.hint


def test_a_port_that_needs_root_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(UserError, match="port 80 may not be opened") as caught:
        ports.free("127.0.0.1", 80)
    assert caught.value.hint is not None
    assert "port = 8000" in caught.value.hint
