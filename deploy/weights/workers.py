"""Jobs in a few threads at once. The first failure, or an interrupt, ends them all."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable
from typing import TypeVar

from deploy.stop import Stop

GRACE_S = 1.0
"""So long a thread has to end of itself. One that sits in a name lookup or waits for a file lock cannot."""

T = TypeVar("T")


def run(jobs: Iterable[Callable[[], T]], *, count: int, stop: Stop) -> Generator[tuple[int, T], None, None]:
    """Each job's number and result, as they end. Raises what the first job to fail raised, and no other's.

    Sets ``stop`` when it is left, however it is left. The threads are daemons, so that the end of the process
    waits for none of them.
    """
    numbered = list(enumerate(jobs))
    waiting, taking = iter(numbered), threading.Lock()
    ended: queue.SimpleQueue[tuple[int, T] | BaseException] = queue.SimpleQueue()

    def take() -> tuple[int, Callable[[], T]] | None:
        with taking:
            return next(waiting, None)

    def work() -> None:
        try:
            while taken := take():
                stop.check()
                number, job = taken
                ended.put((number, job()))
        except BaseException as error:  # noqa: BLE001  # the edge of a thread: raised again in the one that asked
            ended.put(error)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(count, len(numbered)))]
    for thread in threads:
        thread.start()
    try:
        for _ in numbered:
            outcome = ended.get()
            if isinstance(outcome, BaseException):
                raise outcome
            yield outcome
    finally:
        stop.set()
        end = time.monotonic() + GRACE_S
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))
