"""Predicted beside measured, start by start: what `ownweights plan --history` shows."""

from __future__ import annotations

import msgspec

from deploy.engine import Device
from deploy.measured import Known


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """``error_percent``: of the measured value; positive where too much was predicted."""

    predicted: float | None
    measured: float | None
    error_percent: float | None


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One entry as `ownweights plan --history` shows it."""

    at: int
    """Unix seconds."""
    model: str
    variant: str
    engine: str
    """Name and version."""
    device: Device
    hardware: str
    context_tokens: int
    slots: int
    kv_tokens: Comparison
    peak_bytes: Comparison
    load_s: float | None
    tokens_per_s: float | None
    correction: str | None
    corrected_tokens: int | None
    """The context that the engine named instead."""


def rows(known: Known) -> tuple[Row, ...]:
    """The newest first."""
    return tuple(
        Row(
            at=entry.at,
            model=entry.model,
            variant=entry.variant,
            engine=f"{entry.engine} {entry.engine_version}",
            device=entry.device,
            hardware=entry.hardware,
            context_tokens=entry.settings.context_tokens,
            slots=entry.settings.slots,
            kv_tokens=_compared(entry.predicted.kv_tokens, entry.measured.kv_tokens),
            peak_bytes=_compared(entry.predicted.peak_bytes, entry.measured.peak_bytes),
            load_s=entry.measured.load_s,
            tokens_per_s=entry.measured.tokens_per_s,
            correction=entry.correction,
            corrected_tokens=entry.measured.context_tokens if entry.correction is not None else None,
        )
        for entry in reversed(known.entries)
    )


def _compared(predicted: int | None, measured: int | None) -> Comparison:
    error = None if predicted is None or not measured else 100 * (predicted - measured) / measured
    return Comparison(predicted=predicted, measured=measured, error_percent=error)
