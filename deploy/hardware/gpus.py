"""What kinds of GPUs can do: dated facts with their sources, found by the product name that NVML gives."""

from __future__ import annotations

from datetime import date
from functools import cache
from pathlib import Path

import msgspec

MAKER = "NVIDIA "
"""Before most product names. Drivers before 470 leave it out."""


class Row(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A kind of GPU. ``nvml``: its product names."""

    name: str
    nvml: tuple[str, ...]
    memory_gb: int
    memory_bytes: int | None = None
    bandwidth_gbps: float | None = None
    """10^9 bytes/s that its memory can give at most; real programs reach a part of it."""
    compute_capability: str
    source: tuple[str, ...]
    as_of: date
    note: str | None = None

    @property
    def bandwidth_bytes_per_s(self) -> float | None:
        return None if self.bandwidth_gbps is None else self.bandwidth_gbps * 1e9


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    gpu: tuple[Row, ...]


@cache
def rows() -> tuple[Row, ...]:
    return msgspec.toml.decode(Path(__file__).with_name("gpus.toml").read_bytes(), type=Table).gpu


def find(name: str | None) -> Row | None:
    """The row of a product name. None for one that no row names, and for a MIG slice, which has a part of all."""
    if name is None:
        return None
    return next((row for row in rows() if name.removeprefix(MAKER) in map(_short, row.nvml)), None)


def _short(name: str) -> str:
    return name.removeprefix(MAKER)
