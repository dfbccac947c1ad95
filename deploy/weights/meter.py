"""How far a pull is: one bar per file under way, one for all of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from deploy import output
from deploy.lockfile import File

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

STEP_BYTES = 1 << 20
"""A bar is moved no more often: over TLS a chunk may be 16 KiB."""


class Meter:
    """The bar of one file. It never runs backwards: a place may announce bytes before it hands them on."""

    def __init__(self, meters: Meters, file: File, kept: int) -> None:
        self._meters = meters
        self._size = file.size
        self._seen = kept
        kept_text = f" ({output.size(kept)} kept)" if kept else ""
        self.task = meters.add(PurePosixPath(file.path).name + kept_text, file.size, kept)

    def reach(self, position: int) -> None:
        step = position - self._seen
        if step >= STEP_BYTES or (step > 0 and position >= self._size):
            self._seen = position
            self._meters.advance(self.task, step)


class Meters:
    """All bars of a pull. Without a progress display it counts nothing."""

    def __init__(self, progress: Progress | None, *, files: int, size: int, kept: int) -> None:
        self._progress = progress
        self._total = self.add("total", size, kept) if files > 1 else None

    @contextmanager
    def file(self, file: File, kept: int) -> Iterator[Meter]:
        """The bar of one file while it is under way; gone afterwards where there are many."""
        meter = Meter(self, file, kept)
        try:
            yield meter
        finally:
            if self._progress and meter.task is not None and self._total is not None:
                self._progress.update(meter.task, visible=False)

    def add(self, text: str, size: int, kept: int) -> TaskID | None:
        # Not as an advance: what lay here already is no part of the rate.
        return self._progress.add_task(text, total=size, completed=kept) if self._progress else None

    def advance(self, task: TaskID | None, step: int) -> None:
        for bar in (task, self._total):
            if self._progress and bar is not None:
                self._progress.advance(bar, step)
