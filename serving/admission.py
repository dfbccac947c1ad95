"""Who is served now and who waits: at most ``slots`` at an engine, a bounded line before it, first come first."""

from __future__ import annotations

import asyncio
from collections import deque

from serving.board import Entry
from serving.refusal import RETRY_AFTER_S, Refusal

QUEUE_PLACES = 64
"""At least; a model with more slots than this has as many places as slots."""


class Admission:
    """The lines, one per model. ``enter`` and ``leave`` come in pairs, around the whole time at the engine."""

    def __init__(self, places: int = QUEUE_PLACES) -> None:
        self._places = places
        self._lines: dict[str, deque[asyncio.Future[None]]] = {}

    async def enter(self, entry: Entry) -> None:
        """Returns when a slot of ``entry`` is ours. Raises Refusal 429 at once where the line is full.

        A caller that is cancelled while it waits has left the line.
        """
        if entry.running < entry.served.slots and not entry.queued:
            entry.running += 1
            return
        places = max(self._places, entry.served.slots)
        if entry.queued >= places:
            raise Refusal(
                429,
                f"all {entry.served.slots} slots of `{entry.served.name}` are taken and {places} requests wait",
                code="queue_full",
                retry_after_s=RETRY_AFTER_S,
            )
        await self._wait(entry)

    def leave(self, entry: Entry) -> None:
        """The slot goes to the one who waited longest."""
        if line := self._line(entry):
            line.popleft().set_result(None)
        else:
            entry.running -= 1

    async def _wait(self, entry: Entry) -> None:
        line = self._line(entry)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line.append(turn)
        entry.queued += 1
        try:
            await turn
        except asyncio.CancelledError:
            if turn in line:
                line.remove(turn)
            else:
                self.leave(entry)  # called up and gone in the same moment
            raise
        finally:
            entry.queued -= 1

    def _line(self, entry: Entry) -> deque[asyncio.Future[None]]:
        return self._lines.setdefault(entry.served.name, deque())
