"""Versions of engines below which known holes are open: the oldest that may serve, and why."""

from __future__ import annotations

from typing import NamedTuple

from packaging.version import InvalidVersion, Version


class Floor(NamedTuple):
    """``because`` says what is wrong with the versions below ``oldest``."""

    oldest: str
    because: str


FLOORS = {
    "vllm": Floor("0.32", "open to CVE-2026-115911 and CVE-2026-115918 (chat templates of requests)"),
    "ollama": Floor("0.35.0", "open to CVE-2026-103663 (whoever reaches its /api/pull can run code)"),
}
"""Source: the projects' security advisories, as of 2026-11-23. An engine that is not here has no known floor."""


def below(engine: str, version: str) -> Floor | None:
    """The floor that this version does not reach; None where it does, or where the engine has none.

    A version that cannot be read counts as below: nobody can say that it is safe.
    """
    floor = FLOORS.get(engine)
    if floor is None:
        return None
    try:
        return floor if Version(version) < Version(floor.oldest) else None
    except InvalidVersion:
        return floor
