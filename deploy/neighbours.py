"""Other processes on this box: who holds memory, and who takes a core that an engine counts on.

One of two cores taken by a neighbour costs an engine that spins on both far more than half of its speed
(measured with llama.cpp and vLLM on 2 cores, 2026-11).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import psutil

from deploy import paths

SAMPLE_S = 0.25
BUSY_CORES = 0.5


class Neighbour(msgspec.Struct, frozen=True, kw_only=True):
    """A process at one moment. ``started`` is unix seconds: pid and start together mean one process."""

    pid: int
    name: str
    started: float
    cpu_s: float
    """User and system time since its start."""
    memory_bytes: int
    """Resident."""


def snapshot() -> tuple[Neighbour, ...]:
    """Every process that may be read, but not this one."""
    found = []
    for process in psutil.process_iter():
        try:
            with process.oneshot():
                times = process.cpu_times()
                found.append(
                    Neighbour(
                        pid=process.pid,
                        name=process.name(),
                        started=process.create_time(),
                        cpu_s=times.user + times.system,
                        memory_bytes=process.memory_info().rss,
                    )
                )
        except psutil.Error:
            continue
    return tuple(neighbour for neighbour in found if neighbour.pid != os.getpid())


def busy(sleep: Callable[[float], None] = time.sleep) -> tuple[tuple[Neighbour, float], ...]:
    """Who takes more than half a core for the length of a sample, with the cores it takes; the busiest first."""
    before, began = snapshot(), time.monotonic()
    sleep(SAMPLE_S)
    return compare(before, snapshot(), time.monotonic() - began)


def compare(
    before: tuple[Neighbour, ...], after: tuple[Neighbour, ...], elapsed_s: float
) -> tuple[tuple[Neighbour, float], ...]:
    """The same from two snapshots. A process that is in one of them only is not counted."""
    earlier = {(neighbour.pid, neighbour.started): neighbour.cpu_s for neighbour in before}
    cores = [
        (neighbour, (neighbour.cpu_s - earlier[key]) / elapsed_s)
        for neighbour in after
        if (key := (neighbour.pid, neighbour.started)) in earlier
    ]
    return tuple(sorted((pair for pair in cores if pair[1] > BUSY_CORES), key=lambda pair: -pair[1]))


def is_ours(pid: int, service_pid: int | None) -> bool:
    """Whether it is the gateway, an engine, or a helper of one. ``service_pid`` is the gateway's, where it runs.

    Engines are told by the environment they run out of, their helpers, which rename themselves, by their parents.
    """
    try:
        process = psutil.Process(pid)
        family = (process, *process.parents())
        return any(member.pid == service_pid or _is_engine(member) for member in family)
    except psutil.Error:
        return False


def _is_engine(process: psutil.Process) -> bool:
    command = process.cmdline()
    home = paths.environments_dir()
    # A relocatable script names its Python by the path behind all links.
    return bool(command) and any(Path(command[0]).is_relative_to(root) for root in (home, home.resolve()))
