"""The plan: engine, variant, settings, memory and command per model, each decision with its reason. The nouns.

``deploy.planning`` makes one. Every pair of engine and variant that was not chosen is in ``rejected``, with the
reason and what would change it; a model that nothing here can run is in ``unplanned``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

from deploy.engine import Command, Device, Engine, Fix, Launch, Settings
from deploy.errors import PlanError
from deploy.lockfile import Variant
from deploy.memory import Provenance, Term

Verdict = Literal["fits", "limits", "no"]
"""limits: it runs, with less context or fewer slots than were wanted, or with something that cannot be foreseen."""


class Rejection(msgspec.Struct, frozen=True, kw_only=True):
    """What was not chosen, why, and what would change that: in words, and as numbers where there are any."""

    what: str
    reason: str
    change: str
    fix: Fix | None = None
    device: Device | None = None
    """None: a catalogue row that `auto` has passed over."""
    reads: bool = True
    """The engine reads that format: it is this box, or the wish, that is against the pair."""


class Speed(msgspec.Struct, frozen=True, kw_only=True):
    """Decode speed of one stream. ``source`` says from what it follows."""

    tokens_per_s: float
    provenance: Provenance
    source: str


class ModelPlan(msgspec.Struct, frozen=True, kw_only=True):
    """How one model will run."""

    model: str
    aliases: tuple[str, ...]
    verdict: Verdict
    limits: tuple[str, ...]
    """What keeps it from being ``fits``."""
    engine: str
    engine_version: str
    device: Device
    variant: str
    """``format/precision`` of the locked variant."""
    revision: str
    """Commit of the weights, or their tree digest where they came from a path: 12 digits."""
    weights_bytes: int
    settings: Settings
    context_fixed: bool
    """The user's own context: it is never lowered, whatever an engine suggests."""
    kv_tokens: int | None
    """That the KV cache of one device's share holds, over all requests; None where it cannot be known."""
    memory: tuple[Term, ...]
    """Of one device, the fullest."""
    room_bytes: int | None
    """What the plan may take of that device; None where free memory is unknown."""
    speed: Speed | None
    because: tuple[str, ...]
    rejected: tuple[Rejection, ...]
    command: Command
    launch: Launch
    """What the command was made from, to make it again with another context."""
    log: str
    start_timeout_s: float


class Unplanned(msgspec.Struct, frozen=True, kw_only=True):
    """A model that nothing here can run as it is wished for."""

    model: str
    reason: str
    hint: str
    rejected: tuple[Rejection, ...]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """All models of the lock on this box."""

    hardware: str
    """Fingerprint of the hardware it was made for."""
    lock: str
    """sha256 of the lock."""
    models: tuple[ModelPlan, ...]
    unplanned: tuple[Unplanned, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """The worst of all models'."""
        if self.unplanned:
            return "no"
        return "limits" if any(model.verdict == "limits" for model in self.models) else "fits"


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """Where things will lie, so that the plan can show the exact command before anything exists."""

    weights: Callable[[Variant], Path]
    environment: Callable[[Engine], Path]
    sockets: Path
    state: Path
    logs: Path


def insist(plan: Plan) -> Plan:
    """The plan, or PlanError for the first model that cannot run; its message carries every rejection."""
    for missing in plan.unplanned:
        lines = "".join(f"\n  {entry.what}: {entry.reason} → {entry.change}" for entry in missing.rejected)
        raise PlanError(f"{missing.reason}:{lines}", hint=missing.hint)
    return plan


def slug(name: str) -> str:
    """A model's name as a file name: itself where that is safe, else with a digest, so that no two collide."""
    safe = re.sub(r"[^A-Za-z0-9._-]", "-", name)
    return name if safe == name else f"{safe}-{short(name)}"


def short(name: str) -> str:
    """Eight digits: a socket's path has room for little."""
    return hashlib.sha256(name.encode()).hexdigest()[:8]
