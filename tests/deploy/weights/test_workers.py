"""Jobs at once: results as they come, the first failure ends all, and nothing is waited for that cannot end."""

from __future__ import annotations

import threading
from contextlib import closing
from functools import partial

import pytest

from deploy.stop import Stop, Stopped
from deploy.weights import workers


def test_results_carry_the_number_of_their_job() -> None:
    jobs = [partial(pow, number, 2) for number in range(20)]
    assert sorted(workers.run(jobs, count=3, stop=Stop())) == [(number, number**2) for number in range(20)]


def test_no_jobs_are_no_results() -> None:
    assert list(workers.run([], count=3, stop=Stop())) == []


def test_so_many_run_at_once_and_no_more() -> None:
    both, running, most = threading.Barrier(2), [0], [0]
    lock = threading.Lock()

    def job() -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        both.wait(20)
        with lock:
            running[0] -= 1

    assert len(list(workers.run([job] * 6, count=2, stop=Stop()))) == 6
    assert most[0] == 2


def test_the_first_failure_is_raised_and_ends_the_others() -> None:
    stop, seen = Stop(), threading.Event()

    def wait() -> None:
        seen.set()
        try:
            stop.sleep(60)
        except Stopped:
            raise RuntimeError("a consequence, which must not be what is raised") from None

    def fail() -> None:
        seen.wait(20)
        raise ValueError("the cause")

    with pytest.raises(ValueError, match="the cause"):
        list(workers.run([wait, fail, pytest.fail], count=2, stop=stop))


@pytest.mark.parametrize("kind", [IndexError, StopIteration, KeyboardInterrupt])
def test_no_failure_is_taken_for_the_end(kind: type[BaseException]) -> None:
    def fail() -> None:
        raise kind("of the job")

    jobs = iter(workers.run([fail], count=1, stop=Stop()))
    # A generator may not let StopIteration through.
    with pytest.raises(RuntimeError if kind is StopIteration else kind):
        next(jobs)


def test_a_thread_that_cannot_end_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "GRACE_S", 0.05)
    never, begun = threading.Event(), threading.Event()

    def sit() -> None:
        begun.set()
        never.wait(60)

    with closing(workers.run([sit, lambda: None], count=2, stop=Stop())) as ended:
        assert next(ended) == (1, None)
        begun.wait(20)
    assert not never.is_set()
    never.set()


def test_stop_wakes_what_waits_then_and_what_comes_later() -> None:
    stop, woken = Stop(), []
    with stop.waking(lambda: woken.append("gone")):
        pass
    with stop.waking(lambda: woken.append("waiting")):
        stop.set()
    with stop.waking(lambda: woken.append("late")):
        pass
    assert woken == ["waiting", "late"]
    for look in (stop.check, partial(stop.sleep, 60)):
        with pytest.raises(Stopped):
            look()
