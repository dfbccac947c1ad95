"""Bars that tell how far a pull is, and never run backwards."""

from __future__ import annotations

from deploy import output
from deploy.lockfile import File
from deploy.weights.meter import STEP_BYTES, Meters

SIZE = 10 * STEP_BYTES


def test_a_bar_does_not_run_backwards_and_ends_at_its_end() -> None:
    file = File(path="sub/x.gguf", size=SIZE + 5, sha256="0" * 64)
    seen = []
    with output.progress() as progress:
        meters = Meters(progress, files=2, size=2 * SIZE, kept=STEP_BYTES)
        with meters.file(file, kept=STEP_BYTES) as meter:
            total, bar = progress.tasks
            assert (total.completed, bar.completed, bar.description) == (STEP_BYTES, STEP_BYTES, "x.gguf (1 MB kept)")
            for position in (3 * STEP_BYTES, 2 * STEP_BYTES, 3 * STEP_BYTES + 1, SIZE + 5, SIZE):
                meter.reach(position)
                seen.append((bar.completed, total.completed))
        assert not bar.visible
    assert seen == [(position, position) for position in (3 * STEP_BYTES,) * 3 + (SIZE + 5,) * 2]


def test_one_file_has_one_bar_that_stays() -> None:
    file = File(path="x.gguf", size=SIZE, sha256="0" * 64)
    with output.progress() as progress:
        with Meters(progress, files=1, size=SIZE, kept=0).file(file, kept=0) as meter:
            meter.reach(SIZE)
        (bar,) = progress.tasks
        assert (bar.completed, bar.visible) == (SIZE, True)


def test_without_a_display_nothing_is_counted() -> None:
    with Meters(None, files=2, size=SIZE, kept=0).file(File(path="x", size=SIZE, sha256="0" * 64), kept=0) as meter:
        meter.reach(SIZE)
        assert meter.task is None
