"""The plan: engine, variant, settings, memory and command per model, each decision with its reason. Pure data."""

from __future__ import annotations

import msgspec

from deploy.engine import Command, Device, Settings


class Term(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the memory table. ``provenance``: measured | predicted | user | third-party."""

    name: str
    bytes: int
    formula: str
    provenance: str


class Rejection(msgspec.Struct, frozen=True, kw_only=True):
    """What was not chosen, why, and what would change that."""

    what: str
    reason: str
    change: str


class ModelPlan(msgspec.Struct, frozen=True, kw_only=True):
    """How one model will run."""

    model: str
    aliases: tuple[str, ...]
    engine: str
    engine_version: str
    device: Device
    variant: str
    """``format/precision`` of the locked variant."""
    revision: str
    """Commit of the weights, or their tree digest where they came from a path: 12 digits."""
    weights_bytes: int
    settings: Settings
    memory: tuple[Term, ...]
    because: tuple[str, ...]
    rejected: tuple[Rejection, ...]
    command: Command
    environment: str
    """Folder of the engine's environment."""
    weights: str
    socket: str
    log: str
    start_timeout_s: float


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """All models of the lock on this box."""

    hardware: str
    """Fingerprint of the hardware it was made for."""
    lock: str
    """sha256 of the lock."""
    models: tuple[ModelPlan, ...]
