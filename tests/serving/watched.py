"""A board entry whose states can be awaited, and commands of engines that behave as told."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

from deploy.engine import Command
from serving.board import Entry, Served, State

LIMIT_S = 30.0


class Watched(Entry):
    """Remembers every state it was in."""

    def __init__(self, socket: Path) -> None:
        self.history: list[State] = []
        self._news = asyncio.Event()
        served = Served(
            name="tiny",
            socket=str(socket),
            revision="0",
            engine="fake 1",
            lock="0",
            context_tokens=64,
            slots=1,
            created=0,
        )
        super().__init__(served)

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        if name == "state" and hasattr(self, "_news"):
            if self.history[-1:] != [value]:
                self.history.append(State(str(value)))
            self._news.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Returns when the condition holds after a change of state. TimeoutError after 30 s."""
        async with asyncio.timeout(LIMIT_S):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def reaches(self, state: State, *, times: int = 1) -> None:
        await self.until(lambda: self.state is state and self.history.count(state) >= times)


def fake(socket: Path, script: str = "") -> Command:
    """The engine that only pretends."""
    return Command(
        argv=(sys.executable, "-m", "serving.engines.fake", "--socket", str(socket), "--script", script),
        env={"PYTHONSAFEPATH": "1"},
    )


def python(program: str) -> Command:
    """Any program in place of an engine."""
    return Command(argv=(sys.executable, "-c", program), env={})
