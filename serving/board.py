"""The board: which model is served where, and in what state. The fleet writes it, the gateway reads it.

One event loop owns it, so it needs no locks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import msgspec


class State(StrEnum):
    """Life of an engine process (DESIGN §7)."""

    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """A model as clients see it; these are also the receipts on every answer."""

    name: str
    aliases: tuple[str, ...] = ()
    socket: str
    """Unix socket of its engine."""
    revision: str
    engine: str
    """Name and version: ``llamacpp 2026.10.11549``."""
    lock: str
    """First 12 hex digits of the lock's sha256."""
    context_tokens: int
    slots: int
    created: int
    """Unix seconds, when it was planned."""
    cancels_whole_answers: bool = True
    """Of the engine, as its adapter says (``deploy.engine``)."""


@dataclass(slots=True)
class Entry:
    """One line of the board. ``running`` and ``queued`` are the gateway's own counts."""

    served: Served
    state: State = State.STARTING
    detail: str = ""
    """Why it is in this state: the cause of a failure, or what it waits for."""
    running: int = 0
    queued: int = 0
    heard_s: float | None = None
    """Monotonic time of the last byte that its engine gave a client: proof of life."""


class Board:
    """Names and aliases to entries."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._names: dict[str, Entry] = {}

    def put(self, served: Served) -> Entry:
        """Add a model, or take over a new description of it; its state is kept."""
        entry = self._entries.get(served.name)
        if entry is None:
            entry = self._entries[served.name] = Entry(served)
        entry.served = served
        for name in (served.name, *served.aliases):
            self._names[name] = entry
        return entry

    def find(self, name: str) -> Entry | None:
        return self._names.get(name)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    @property
    def ready(self) -> bool:
        """Every model answers."""
        return bool(self._entries) and all(entry.state is State.READY for entry in self)
