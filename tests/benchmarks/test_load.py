from __future__ import annotations

import asyncio
import time

from benchmarks.load import ClosedLoop, Shape
from benchmarks.timing import Outcome, Record
from benchmarks.window import steady


class Served:
    """Answers after a turn of the event loop and remembers how many were open at once."""

    def __init__(self, outcome: Outcome = Outcome.OK) -> None:
        self.open = self.most = 0
        self.indices: list[int] = []
        self._outcome = outcome

    async def ask(self, index: int, t_sched_ns: int) -> Record:
        self.open += 1
        self.most = max(self.most, self.open)
        self.indices.append(index)
        sent_ns = time.perf_counter_ns()
        await asyncio.sleep(0.002)
        self.open -= 1
        done_ns = time.perf_counter_ns()
        return Record(t_sched_ns=t_sched_ns, t_send_ns=sent_ns, t_done_ns=done_ns, outcome=self._outcome)


def loaded(served: Served, shape: Shape) -> ClosedLoop:
    loop = ClosedLoop(served.ask, shape, ramp_s=0.001)
    asyncio.run(loop.run())
    return loop


def test_as_many_are_open_as_there_are_places_and_never_more() -> None:
    served = Served()
    loaded(served, Shape(concurrency=5, warmups=10, requests=20, window_s=0))
    assert served.most == 5


def test_every_request_has_an_index_of_its_own() -> None:
    served = Served()
    loop = loaded(served, Shape(concurrency=3, warmups=6, requests=9, window_s=0))
    assert served.indices == list(range(len(loop.records)))


def test_enough_end_inside_the_window_after_the_warm_up() -> None:
    loop = loaded(Served(), Shape(concurrency=4, warmups=8, requests=12, window_s=0))
    window = steady(loop.records, 4, warmups=8)
    assert window is not None
    assert sum(window.holds(record.t_done_ns) for record in loop.records) >= 12


def test_a_successor_is_due_when_its_predecessor_has_ended() -> None:
    loop = loaded(Served(), Shape(concurrency=1, warmups=2, requests=4, window_s=0))
    assert [record.t_sched_ns for record in loop.records[1:]] == [record.t_done_ns for record in loop.records[:-1]]


def test_it_goes_on_until_the_window_is_long_enough() -> None:
    loop = loaded(Served(), Shape(concurrency=2, warmups=2, requests=1, window_s=0.1))
    window = steady(loop.records, 2, warmups=2)
    assert window is not None
    assert window.seconds >= 0.1


def test_a_server_that_fails_every_request_is_not_asked_for_ever() -> None:
    loop = loaded(Served(Outcome.HTTP), Shape(concurrency=4, warmups=8, requests=1000, window_s=60))
    assert len(loop.records) < 20


def test_what_has_ended_is_kept_when_the_load_is_cancelled() -> None:
    async def cancelled() -> ClosedLoop:
        enough = asyncio.Event()
        loop = ClosedLoop(
            Served().ask,
            Shape(concurrency=2, warmups=1, requests=10**6, window_s=3600),
            ramp_s=0,
            ended=lambda measured: enough.set() if measured == 5 else None,
        )
        task = asyncio.create_task(loop.run())
        await enough.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        return loop

    assert len(asyncio.run(cancelled()).records) >= 5
