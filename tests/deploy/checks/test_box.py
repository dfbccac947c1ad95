"""What other processes take: memory, cores, the port. With real processes and sockets."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress

import pytest

from deploy import ports
from deploy.checks import box as checks
from deploy.config import Config, ModelWish, Server
from deploy.neighbours import Neighbour
from tests.deploy.checks.contexts import GB, box, context


def test_little_memory_names_who_holds_it() -> None:
    verdict = checks.memory(context(hardware=box(memory_available_bytes=GB)))
    assert verdict.status == "warn"
    assert verdict.seen.startswith("1.0 GB of 16.0 GB free; pid ")
    assert verdict.hint is not None
    assert verdict.hint.startswith("kill ")


def test_enough_memory_and_unknown_memory() -> None:
    assert checks.memory(context()).status == "ok"
    assert checks.memory(context(hardware=box(memory_available_bytes=None))).status == "skip"


def test_a_neighbour_that_takes_a_core_is_named() -> None:
    stranger = Neighbour(pid=2**22 + 1, name="ffmpeg", started=0.0, cpu_s=9.0, memory_bytes=1)
    verdict = checks.judge_cores(context(), ((stranger, 0.97),))
    assert (verdict.status, verdict.seen) == ("warn", f"pid {stranger.pid} (ffmpeg) takes 1.0 of 2 usable cores")
    assert checks.judge_cores(context(), ()).status == "ok"


def test_our_own_service_is_no_neighbour() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        ours = Neighbour(pid=child.pid, name="python", started=0.0, cpu_s=9.0, memory_bytes=1)
        assert checks.judge_cores(context(service_pid=child.pid), ((ours, 2.0),)).status == "ok"
        assert checks.judge_cores(context(), ((ours, 2.0),)).status == "warn"
        child.communicate(b"\n")


Held = tuple[int, int]


@pytest.fixture
def held() -> Iterator[Held]:
    """The pid of another process, and the port that it listens on."""
    program = (
        "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        yield child.pid, int(child.stdout.readline())
        child.communicate(b"\n")


def config(port: int, host: str = "127.0.0.1") -> Config:
    return Config(model=(ModelWish(name="chat"),), server=Server(host=host, port=port))


def test_a_free_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert checks.port(context(config=config(port))).seen == f"127.0.0.1:{port} is free"


def test_a_port_held_by_a_stranger_fails_with_its_name(held: Held) -> None:
    pid, port = held
    verdict = checks.port(context(config=config(port)))
    assert verdict.status == "fail"
    assert f"127.0.0.1:{port} is held by pid {pid} (" in verdict.seen
    words = re.fullmatch(
        r"set \[server\] port = (\d+) in models.toml  # or, if it can be spared: kill (\d+)", verdict.hint or ""
    )
    assert words
    assert int(words[2]) == pid
    assert ports.free("127.0.0.1", int(words[1])), "the proposed port can be taken"


def test_the_port_after_the_last_is_the_first_that_needs_no_root() -> None:
    with socket.socket() as listener:
        # Lingering clients elsewhere may hold the last port: it is held then too.
        with suppress(OSError):
            listener.bind(("127.0.0.1", 65535))
            listener.listen()
        hint = checks.port(context(config=config(65535))).hint or ""
    found = re.match(r"set \[server\] port = (\d+) ", hint)
    assert found
    assert 1024 <= int(found[1]) < 65535


def test_a_port_held_by_our_own_service_is_in_order(held: Held) -> None:
    pid, port = held
    verdict = checks.port(context(config=config(port), service_pid=pid))
    assert verdict.status == "ok"
    assert "our own service" in verdict.seen
