"""What earlier starts on this box have shown, for the plan: a line of memory, a context, a speed, a load time. Pure."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from deploy.engine import Engine, Settings
from deploy.hardware import Hardware
from deploy.lockfile import Variant
from deploy.measured import DIFFERENCE, Known
from deploy.memory import Term
from deploy.plan import Speed
from deploy.planning import speed

LOAD_FACTOR = 4
"""A start may take so many times what it took before: the page cache is cold, or the box is busy."""


def terms(variant: Variant, engine: Engine, settings: Settings, hardware: Hardware, known: Known) -> tuple[Term, ...]:
    """The difference between the peak that was measured and the one that was predicted for the same start."""
    difference = known.peak_difference(variant, engine, hardware, settings)
    # Less than predicted is not counted on: a cache that no request has filled yet takes no memory.
    if difference is None or difference.bytes <= 0:
        return ()
    return (
        Term(
            name=DIFFERENCE,
            bytes=difference.bytes,
            formula=f"the peak of {_day(difference.at)} less what was predicted for it",
            provenance="measured",
            confidence="close",
            source="an earlier start on this box (`ownweights plan --forget` drops what was measured)",
        ),
    )


def tokens_per_s(
    variant: Variant, engine: Engine, settings: Settings, hardware: Hardware, known: Known
) -> Speed | None:
    """Measured on this box where it was, else predicted."""
    pace = known.tokens_per_s(variant, engine, hardware)
    if pace is not None:
        return Speed(tokens_per_s=pace.tokens_per_s, provenance="measured", source=f"a benchmark of {_day(pace.at)}")
    given = tuple(gpu for gpu in hardware.gpus if gpu.index in settings.devices)
    box = msgspec.structs.replace(hardware, gpus=given)
    return speed.predicted(variant, settings.threads, box, engine.device, settings.split.tensor)


def start_timeout_s(variant: Variant, engine: Engine, hardware: Hardware, known: Known) -> float:
    """The engine's own figure, or more where starts have taken long here."""
    load_s = known.load_s(variant, engine, hardware) or 0.0
    return max(engine.start_timeout_s(variant, hardware), LOAD_FACTOR * load_s)


def lessons(variant: Variant, engine: Engine, settings: Settings, hardware: Hardware, known: Known) -> tuple[str, ...]:
    """What was measured with the same settings, in words."""
    entry = known.same_settings(variant, engine, hardware, settings)
    if entry is None or entry.measured.kv_tokens is None:
        return ()
    return (f"with the same settings the engine had room for {entry.measured.kv_tokens} tokens on {_day(entry.at)}",)


def _day(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")
