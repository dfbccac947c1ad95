from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from pathlib import Path

from deploy.engine import Command
from serving import child as children
from serving import identity
from serving.child import LOG_BYTES, Child
from serving.identity import Identity
from tests.serving.watched import LIMIT_S, python


async def fate(command: Command, folder: Path) -> str:
    child = children.spawn(command, log=folder / "log", folder=folder)
    assert await child.exits_within(LIMIT_S)
    return child.fate()


def test_how_an_engine_ended_is_told(tmp_path: Path) -> None:
    def dying(number: str) -> Command:
        return python(f"import os, signal; os.kill(os.getpid(), signal.{number})")

    (tmp_path / "log").touch()
    assert asyncio.run(fate(python("raise SystemExit(7)"), tmp_path)) == "the engine ended with exit code 7"
    assert asyncio.run(fate(dying("SIGILL"), tmp_path)).endswith("this CPU does not have (SIGILL)")
    assert asyncio.run(fate(dying("SIGSEGV"), tmp_path)) == "the engine was ended by SIGSEGV"


def test_a_large_log_is_put_aside_at_the_next_start(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "tiny.log"
    assert children.open_log(log) == 0
    log.write_bytes(b"x" * LOG_BYTES)
    assert children.open_log(log) == LOG_BYTES
    log.write_bytes(b"x" * (LOG_BYTES + 1))
    assert children.open_log(log) == 0
    assert (tmp_path / "logs" / "tiny.log.1").stat().st_size == LOG_BYTES + 1


def test_only_the_process_that_was_meant_is_adopted() -> None:
    async def scene() -> None:
        other = subprocess.Popen(["sleep", "99"], start_new_session=True)
        try:
            found = identity.of(other.pid)
            assert found
            assert children.adopt(Identity(pid=found.pid, started=found.started + 1, boot=found.boot)) is None
            assert children.adopt(Identity(pid=found.pid, started=found.started, boot="another")) is None
            adopted = children.adopt(found)
            assert isinstance(adopted, Child)
            await adopted.end(grace_s=LIMIT_S)
            assert children.adopt(found) is None
        finally:
            other.kill()
            other.wait()

    asyncio.run(scene())


def test_a_listener_is_known_by_its_socket_if_it_leads_a_session(tmp_path: Path) -> None:
    path = str(tmp_path / "e.sock")
    assert children.listener(path) is None
    program = (
        f"import socket; s = socket.socket(socket.AF_UNIX); s.bind({path!r}); s.listen(); print(flush=True); s.accept()"
    )
    with subprocess.Popen(python(program).argv, stdout=subprocess.PIPE, start_new_session=True) as other:
        assert other.stdout
        other.stdout.readline()
        assert children.listener(path) == identity.of(other.pid)
        other.kill()
    assert children.listener(path) is None
    ours = tmp_path / "ours.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(ours))
        server.listen()
        # This very process is no engine of ours: it was started by whoever runs the tests.
        assert (children.listener(str(ours)) is None) == (os.getsid(0) != os.getpid())
