"""What a model needs in memory on one device, as a table: one line per term, with its formula and its source.

An engine writes its own table (``Engine.memory``). Several devices hold the same each, or nearly: the table is that
of the fullest one.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from deploy.lockfile import Variant

WEIGHTS = (".safetensors", ".gguf", ".bin")

Provenance = Literal["measured", "predicted", "user", "third-party"]
Confidence = Literal["exact", "close", "rough"]
"""exact: to the byte, checked against running engines; close: within a tenth; rough: the order of magnitude."""


class Term(msgspec.Struct, frozen=True, kw_only=True):
    """One line, in bytes on one device. ``source``: where the formula or the number comes from."""

    name: str
    bytes: int
    formula: str
    provenance: Provenance
    confidence: Confidence
    source: str


def total(terms: tuple[Term, ...]) -> int:
    """Bytes of one device. A measured difference can be negative."""
    return sum(term.bytes for term in terms)


def weights_bytes(variant: Variant) -> int:
    """Of the files that hold tensors; of a variant that is not locked yet, what its source says."""
    held = sum(file.size for file in variant.files if file.path.endswith(WEIGHTS))
    return held or variant.size
