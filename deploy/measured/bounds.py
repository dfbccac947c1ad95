"""What a measurement can be at all: numbers of a real box, and words that a terminal can be shown.

The file is the user's to edit, and an engine's log is anybody's to fill: what lies outside was never measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import msgspec

from deploy.engine import Figures
from deploy.measured import Entry

MOST = 1 << 62
"""Of a count: tokens or bytes."""
MOST_S = 1e6
"""Eleven days."""
MOST_PER_S = 1e6
SLOWEST_PER_S = 1e-6
CHARACTERS = 500
"""Of a text."""

Noun = TypeVar("Noun", bound=msgspec.Struct)
Bounds = dict[str, tuple[float, float]]
"""Name of a field → least and most."""

FIGURES: Bounds = {
    "kv_tokens": (0, MOST),
    "kv_bytes": (0, MOST),
    "weights_bytes": (0, MOST),
    "peak_bytes": (0, MOST),
    "load_s": (0, MOST_S),
    "context_tokens": (1, MOST),
    "tokens_per_s": (SLOWEST_PER_S, MOST_PER_S),
}
SETTINGS: Bounds = {
    "context_tokens": (1, MOST),
    "slots": (1, MOST),
    "threads": (1, MOST),
    "kv_cache_bytes": (0, MOST),
    "gpu_memory_share": (0, 1),
    "batched_tokens": (1, MOST),
}
SPLIT: Bounds = {"tensor": (1, MOST), "pipeline": (1, MOST), "data": (1, MOST)}
ENTRY: Bounds = {"free_bytes": (0, MOST)}


def sound(entry: Entry) -> bool:
    """Whether every number is within its bounds, and every text printable and short."""
    settings, split = entry.settings, entry.settings.split
    outside = [*_outside(settings, SETTINGS), *_outside(split, SPLIT), *_outside(entry, ENTRY)]
    return not outside and all(0 <= device <= MOST for device in settings.devices) and told(entry) == entry


def told(entry: Entry) -> Entry:
    """As it may be kept: what was measured or predicted beyond all bounds is not known, and texts are shortened."""
    split = _worded(entry.settings.split)
    return msgspec.structs.replace(
        _worded(entry),
        settings=msgspec.structs.replace(entry.settings, split=split),
        predicted=plausible(entry.predicted),
        measured=plausible(entry.measured),
    )


def plausible(figures: Figures) -> Figures:
    """Without what is outside its bounds: unknown."""
    return msgspec.structs.replace(figures, **dict.fromkeys(_outside(figures, FIGURES)))


def _outside(noun: msgspec.Struct, bounds: Bounds) -> Iterator[str]:
    """Names of fields. NaN is within nothing."""
    for name, (least, most) in bounds.items():
        value = getattr(noun, name)
        if value is not None and not least <= value <= most:
            yield name


def _worded(noun: Noun) -> Noun:
    texts = {name: text for name, text in msgspec.structs.asdict(noun).items() if isinstance(text, str)}
    return msgspec.structs.replace(noun, **{name: _printable(text) for name, text in texts.items()})


def _printable(text: str) -> str:
    return "".join(filter(str.isprintable, text))[:CHARACTERS]
