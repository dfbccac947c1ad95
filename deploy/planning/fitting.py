"""Catalogue rows on a box: would they run, and what would it take? By sketches, before anything is locked. Pure."""

from __future__ import annotations

from typing import Literal

import msgspec

from deploy.catalog import Row, sketch
from deploy.config import Config, EngineWish, ModelWish
from deploy.engine import Engine
from deploy.hardware import Hardware
from deploy.lockfile import Variant
from deploy.measured import NOTHING, Known
from deploy.planning import experience
from deploy.planning.choice import Choice, Chooser, telling

ANY = EngineWish()
"""Nothing is insisted on."""


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """``verdict`` unknown: the catalogue knows too little. ``change``: what it would take where it does not fit."""

    id: str
    verdict: Literal["fits", "limits", "no", "unknown"]
    variant: str | None = None
    engine: str | None = None
    device: str | None = None
    gpus: int | None = None
    memory_bytes: int | None = None
    """On one device, with one context of ``context_tokens``."""
    context_tokens: int | None = None
    slots: int | None = None
    tokens_per_s: float | None = None
    limits: tuple[str, ...] = ()
    change: str | None = None


def of(
    rows: tuple[Row, ...],
    hardware: Hardware,
    engines: tuple[Engine, ...],
    known: Known = NOTHING,
) -> tuple[Fit, ...]:
    """In the order given."""
    return tuple(_fit(row, hardware, engines, known) for row in rows)


def choose(
    row: Row,
    wish: ModelWish,
    hardware: Hardware,
    engines: tuple[Engine, ...],
    known: Known,
    *,
    insisted: EngineWish = ANY,
    variants: tuple[Variant, ...] | None = None,
) -> Choice:
    """As the plan would, from what the catalogue says of the row, or of these ``variants`` of it alone."""
    chooser = Chooser(
        config=Config(model=(wish,), engines=insisted),
        wish=wish,
        variants=sketch.of(row) if variants is None else variants,
        hardware=hardware,
        engines=engines,
        known=known,
    )
    choice = chooser.choose({})
    falls = choice.way is not None and chooser.falls(choice.way.engine)
    return Choice(way=None, rejected=choice.rejected) if falls else choice


def _fit(row: Row, hardware: Hardware, engines: tuple[Engine, ...], known: Known) -> Fit:
    if not sketch.of(row):
        return Fit(id=row.id, verdict="unknown", change="its size is not known before it is locked")
    choice = choose(row, ModelWish(name=row.id), hardware, engines, known)
    way = choice.way
    if way is None:
        return Fit(id=row.id, verdict="no", change=_change(choice))
    pace = experience.tokens_per_s(way.variant, way.engine, way.settings, hardware, known)
    return Fit(
        id=row.id,
        verdict="limits" if way.limits else "fits",
        variant=way.variant.key,
        engine=way.engine.name,
        device=way.engine.device,
        gpus=way.settings.split.gpus if way.engine.device == "gpu" else 0,
        memory_bytes=way.least_bytes,
        context_tokens=way.settings.context_tokens,
        slots=way.settings.slots,
        tokens_per_s=pace.tokens_per_s if pace else None,
        limits=way.limits,
    )


def _change(choice: Choice) -> str | None:
    found = telling(choice.rejected)
    return f"{found.what}: {found.change}" if found else None
