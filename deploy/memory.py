"""What a model needs in memory, as a table: one line per term, each with its formula.

Sources: weights from the locked file sizes; KV bytes per token from the model's dimensions
(layers x KV heads x 2 x head dim x 2 bytes, checked against running engines); the engine's own part from its adapter.
"""

from __future__ import annotations

import msgspec

from deploy.engine import Engine, Settings
from deploy.lockfile import Variant


class Term(msgspec.Struct, frozen=True, kw_only=True):
    """One line. ``provenance``: measured | predicted | user | third-party."""

    name: str
    bytes: int
    formula: str
    provenance: str


def table(engine: Engine, variant: Variant, settings: Settings) -> tuple[Term, ...]:
    """All terms over all devices together. A KV cache of unknown size has no line: unknown is not zero."""
    terms = [
        Term(name="weights", bytes=variant.size, formula="sum of the locked file sizes", provenance="measured"),
        Term(
            name="engine",
            bytes=engine.overhead_bytes(variant, settings),
            formula=f"runtime and buffers of {engine.name} {engine.version}",
            provenance="predicted",
        ),
    ]
    cache = kv_cache(variant, settings)
    if cache is not None:
        terms.insert(1, cache)
    return tuple(terms)


def kv_cache(variant: Variant, settings: Settings) -> Term | None:
    """The whole context for every slot; None where the model's dimensions are not known."""
    per_token = variant.facts.kv_bytes_per_token
    if per_token is None:
        return None
    tokens = settings.context_tokens * settings.slots
    return Term(
        name="kv cache",
        bytes=tokens * per_token,
        formula=f"{settings.context_tokens} tokens x {settings.slots} slots x {per_token} B",
        provenance="predicted",
    )


def total(terms: tuple[Term, ...]) -> int:
    return sum(term.bytes for term in terms)
