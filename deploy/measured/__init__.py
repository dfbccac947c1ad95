"""What was measured of a model on a box, beside what the plan had predicted: the nouns, and how a plan looks at them.

A measurement belongs to a model's bytes, an engine's version and the static facts of a box. Another lock of the same
bytes finds it again; another engine version does not. ``deploy.measured.store`` keeps them.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import msgspec

from deploy.engine import Device, Engine, Figures, Settings, Split
from deploy.hardware import Hardware
from deploy.lockfile import Variant

LATEST = 253_402_300_799
"""The end of the year 9999, in Unix seconds: what no calendar can show is damage."""
RECENT = 3
"""Starts whose load time counts: the first after a boot reads from the disk, the next from memory."""
LEAST_TOKENS = 2048
"""A context that an engine names is used from here on: the least that a plan promises (``planning.way``)."""
LARGER = 1.1
"""So many times the free memory of a start is clearly more than it had."""
DIFFERENCE = "measured difference"
"""Name of the term that a plan adds. What is predicted is the table without it, or it would undo itself."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One start of an engine, and what came of it."""

    at: Annotated[int, msgspec.Meta(ge=0, le=LATEST)]
    """Unix seconds."""
    model: str
    variant: str
    """``format/precision``."""
    tree: str
    """Of the variant: which bytes these were."""
    hardware: str
    """Fingerprint of the box."""
    engine: str
    engine_version: str
    device: Device
    settings: Settings
    """What it was started with."""
    predicted: Figures
    measured: Figures
    correction: str | None = None
    """What the engine said when it did not start with these settings; ``measured.context_tokens`` is what it named."""
    free_bytes: int | None = None
    """Of the device it failed on, the fullest, without what engines of ours held: as a plan counts it."""

    @property
    def subject(self) -> tuple[str, str, str, str, str]:
        """What it is a measurement of."""
        return (self.tree, self.engine, self.device, self.engine_version, self.hardware)


class Difference(NamedTuple):
    """Measured peak minus predicted peak of one start: negative where it took less."""

    bytes: int
    at: int
    """Unix seconds."""


class Decode(NamedTuple):
    """Speed of one stream, from a benchmark."""

    tokens_per_s: float
    at: int
    """Unix seconds, of the start of the engine that was measured."""


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """All entries, the newest last, as the plan looks at them. Pure data."""

    entries: tuple[Entry, ...] = ()

    def of(self, variant: Variant, engine: Engine, hardware: Hardware) -> tuple[Entry, ...]:
        """Of these bytes on this engine version and box, the newest first."""
        wanted = (variant.tree, engine.name, engine.device, engine.version, hardware.fingerprint)
        return tuple(entry for entry in reversed(self.entries) if entry.subject == wanted)

    def peak_difference(
        self, variant: Variant, engine: Engine, hardware: Hardware, settings: Settings
    ) -> Difference | None:
        """Of the newest start with that split, and room for no more tokens, whose peak was predicted and measured.

        What a small start lacked a larger one lacks too. What a large one lacked says nothing of a smaller one, which
        stays a way out. A peak of more than twice the prediction is a defect to show, and no size to plan with.
        """
        for entry in self.of(variant, engine, hardware):
            if _bare(entry.settings.split) != _bare(settings.split) or _tokens(entry.settings) > _tokens(settings):
                continue
            measured, predicted = entry.measured.peak_bytes, entry.predicted.peak_bytes
            if measured is not None and predicted is not None and measured <= 2 * predicted:
                return Difference(measured - predicted, entry.at)
        return None

    def same_settings(self, variant: Variant, engine: Engine, hardware: Hardware, settings: Settings) -> Entry | None:
        """The newest start with all that decides about memory the same, whose engine told its room for tokens."""
        wanted = _material(settings)
        for entry in self.of(variant, engine, hardware):
            if entry.measured.kv_tokens is not None and _material(entry.settings) == wanted:
                return entry
        return None

    def tokens_per_s(self, variant: Variant, engine: Engine, hardware: Hardware) -> Decode | None:
        """The newest."""
        for entry in self.of(variant, engine, hardware):
            if entry.measured.tokens_per_s is not None:
                return Decode(entry.measured.tokens_per_s, entry.at)
        return None

    def load_s(self, variant: Variant, engine: Engine, hardware: Hardware) -> float | None:
        """The longest of the last few starts."""
        times = [entry.measured.load_s for entry in self.of(variant, engine, hardware)]
        return max([time for time in times if time is not None][:RECENT], default=None)

    def correction(self, variant: Variant, engine: Engine, hardware: Hardware, settings: Settings) -> Entry | None:
        """The newest failure whose engine named a smaller context than these settings ask for.

        Of as many slots and the same split, and with no smaller a share of the GPU's memory. It ends when clearly more
        memory of the device is free than was then, and when a later start with more context than was named, in no
        more memory, has disproved it; where free memory is not known, then alone. Less than a plan promises at the
        least, or no less than was asked for, is no correction.
        """
        later: list[Settings] = []
        for entry in self.of(variant, engine, hardware):
            if not _alike(entry.settings, settings):
                continue
            named = entry.measured.context_tokens
            if entry.correction is None:
                later.append(entry.settings)
            elif named is not None and _counts(entry, named, settings, hardware):
                disproved = any(
                    known.context_tokens > named and _share(known) <= _share(entry.settings) for known in later
                )
                return entry if named < settings.context_tokens and not disproved else None
        return None


NOTHING = Known()
"""Of a box where no engine was started yet."""


def corrects(named: int, asked: int) -> bool:
    """Whether that is a context to go on with: useful, and smaller than what did not start."""
    return LEAST_TOKENS <= named < asked


def free_bytes(hardware: Hardware, device: Device, devices: tuple[int, ...]) -> int | None:
    """RAM, or memory of the fullest of these GPUs, that is free now; None where it is not known."""
    if device == "cpu":
        return hardware.memory_free_bytes
    found = [hardware.reading(gpu).memory_free_bytes for gpu in hardware.gpus if gpu.index in devices]
    return min((free for free in found if free is not None), default=None)


def _counts(entry: Entry, named: int, settings: Settings, hardware: Hardware) -> bool:
    if not corrects(named, entry.settings.context_tokens) or _share(entry.settings) < _share(settings):
        return False
    now = free_bytes(hardware, entry.device, settings.devices)
    return now is None or entry.free_bytes is None or now <= LARGER * entry.free_bytes


def _material(settings: Settings) -> Settings:
    """Without what has no part in how much memory the engine takes: threads, which devices, and words."""
    return msgspec.structs.replace(settings, threads=1, devices=(), split=_bare(settings.split))


def _bare(split: Split) -> Split:
    return msgspec.structs.replace(split, because="", doubt="")


def _alike(one: Settings, other: Settings) -> bool:
    return one.slots == other.slots and _bare(one.split) == _bare(other.split)


def _tokens(settings: Settings) -> int:
    return settings.context_tokens * settings.slots


def _share(settings: Settings) -> float:
    return settings.gpu_memory_share or 0.0
