"""Other processes: real ones, started here and ended here."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import psutil
import pytest

from deploy import neighbours, paths
from deploy.neighbours import Neighbour

WAIT = "import sys; print('here', flush=True); sys.stdin.read()"
SPIN = "print('here', flush=True)\nwhile True: pass"
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {WAIT!r}])"


@contextmanager
def running(program: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has printed its first line; ended in any case."""
    with subprocess.Popen([program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        try:
            assert child.stdout.readline() == b"here\n"
            yield child
        finally:
            assert child.stdin is not None
            child.stdin.close()
            child.kill()


def engine_python() -> str:
    """A Python under one of our engine environments."""
    python = paths.environments_dir() / "engine" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    return str(python)


def process(pid: int, cpu_s: float, *, started: float = 1.0) -> Neighbour:
    return Neighbour(pid=pid, name="x", started=started, cpu_s=cpu_s, memory_bytes=0)


def test_who_takes_more_than_half_a_core_the_busiest_first() -> None:
    before = (process(1, 10.0), process(2, 5.0), process(3, 0.0))
    after = (process(1, 10.15), process(2, 5.1), process(3, 0.5))
    assert [(found.pid, round(cores, 2)) for found, cores in neighbours.compare(before, after, 0.25)] == [
        (3, 2.0),
        (1, 0.6),
    ]


def test_a_pid_that_was_given_to_another_process_is_not_compared() -> None:
    before, after = (process(1, 0.0, started=1.0), process(2, 0.0)), (process(1, 9.0, started=2.0), process(3, 9.0))
    assert neighbours.compare(before, after, 0.25) == ()


def test_a_snapshot_shows_a_process_at_work_but_not_this_one() -> None:
    with running(sys.executable, "-c", SPIN) as child:
        deadline = time.monotonic() + 30
        found: list[Neighbour] = []
        while time.monotonic() < deadline and not (found and found[0].cpu_s > 0.1):
            found = [neighbour for neighbour in neighbours.snapshot() if neighbour.pid == child.pid]
        assert found[0].name == psutil.Process(child.pid).name()
    assert found[0].cpu_s > 0.1
    assert found[0].memory_bytes > 1_000_000
    assert os.getpid() not in {neighbour.pid for neighbour in neighbours.snapshot()}


def test_a_sample_takes_as_long_as_it_says() -> None:
    slept: list[float] = []
    found = neighbours.busy(sleep=slept.append)
    assert slept == [neighbours.SAMPLE_S]
    assert all(cores > neighbours.BUSY_CORES for _, cores in found)


def test_a_stranger_is_not_ours() -> None:
    with running(sys.executable, "-c", WAIT) as child:
        assert not neighbours.is_ours(child.pid, None)
        assert neighbours.is_ours(child.pid, child.pid), "but the gateway is"
        assert neighbours.is_ours(child.pid, os.getpid()), "and what it has started"


def test_an_engine_is_told_by_its_environment() -> None:
    with running(engine_python(), "-c", WAIT) as child:
        assert neighbours.is_ours(child.pid, None)


def test_and_its_helper_by_its_parent() -> None:
    with running(engine_python(), "-c", PARENT) as engine:
        (helper,) = psutil.Process(engine.pid).children()
        assert neighbours.is_ours(helper.pid, None)
        helper.kill()


def test_an_environment_behind_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = Path(engine_python())
    (tmp_path / "link").symlink_to(tmp_path / "home")
    monkeypatch.setenv("OWNWEIGHTS_HOME", str(tmp_path / "link"))
    with running(str(program), "-c", WAIT) as child:
        assert neighbours.is_ours(child.pid, None)


def test_a_process_that_is_gone_is_not_ours() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert not neighbours.is_ours(child.pid, child.pid)


def test_a_neighbour_can_be_printed_as_json() -> None:
    assert b'"memory_bytes"' in msgspec.json.encode(process(1, 0.0))
