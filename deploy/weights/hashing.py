"""Files hashed on all cores: the disk is what they wait for, and hashing lets go of Python's lock."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from functools import partial
from io import FileIO
from typing import TYPE_CHECKING, TypeVar

from deploy.stop import Stop
from deploy.weights import workers

if TYPE_CHECKING:
    from rich.progress import Progress

CHUNK_BYTES = 1 << 20
Job = TypeVar("Job")
Result = TypeVar("Result")
Reach = Callable[[int], None]
"""Hears of so many more bytes that were hashed, from any thread."""


def sha256(content: FileIO, reach: Reach) -> str:
    """Of what is still to be read, in hexadecimal."""
    digest, chunk = hashlib.sha256(), bytearray(CHUNK_BYTES)
    view = memoryview(chunk)
    while count := content.readinto(chunk):
        digest.update(view[:count])
        reach(count)
    return digest.hexdigest()


def each(
    jobs: Sequence[Job],
    work: Callable[[Job, Reach], Result],
    size: Callable[[Job], int],
    progress: Progress | None = None,
) -> dict[Job, Result]:
    """What ``work`` says to each job, several at once, the largest first: so that no thread ends long after the rest.

    Interrupted, all of them stop at their next chunk. ``size`` is in bytes.
    """
    task = progress.add_task("hashing", total=sum(map(size, jobs))) if progress and jobs else None
    order, stop = sorted(jobs, key=size, reverse=True), Stop()

    def reach(count: int) -> None:
        stop.check()
        if progress and task is not None:
            progress.advance(task, count)

    calls = [partial(work, job, reach) for job in order]
    return {order[number]: found for number, found in workers.run(calls, count=_cores(), stop=stop)}


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
