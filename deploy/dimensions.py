"""The dimensions of a model that decide about memory: what its layers keep per token or per sequence, and its widths.

Read from a config.json or a GGUF header at the locked commit, or from the catalogue. Absent is not known.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from deploy.config import Table

ELEMENT_BYTES = 2
"""Caches are 16 bits wide unless an engine is told otherwise."""

MOST = 1 << 32
"""More than any model has of anything: layers, heads, a width, tokens."""
MOST_TOKEN_BYTES = 1 << 30
"""The same of what one token takes in a cache: each number of it may be likely, and all of them together not."""

Kind = Literal["gqa", "mla", "hybrid-gqa"]


class Recurrent(Table, frozen=True, kw_only=True):
    """Layers with linear attention: a state per sequence, whatever its length (Qwen3-Next's gated delta rule)."""

    layers: int
    key_heads: int
    value_heads: int
    key_width: int
    value_width: int
    kernel: int
    """Taps of the convolution before it; all but one are kept."""
    element_bytes: int = ELEMENT_BYTES
    """Of the recurrent state; the convolution's is as wide as the model's type."""


class Cache(Table, frozen=True, kw_only=True):
    """What is kept per token. gqa: heads and widths; mla: one compressed vector and the rotary part of the key."""

    kind: Kind
    layers: int
    """Those that keep something for every token."""
    kv_heads: int | None = None
    key_width: int | None = None
    value_width: int | None = None
    rank: int | None = None
    rotary_width: int | None = None
    indexer_width: int | None = None
    """Of a sparse indexer's keys, one per layer and token."""
    indexer_layers: int | None = None
    """Those with an indexer, where it is not all of ``layers``."""
    window: int | None = None
    """Tokens that a layer with a sliding window looks back at."""
    window_layers: int = 0
    """With such a window, beside ``layers``, and as wide."""
    recurrent: Recurrent | None = None

    @property
    def width(self) -> int:
        """Elements per token and layer, over all KV heads; without an indexer's."""
        if self.kind == "mla":
            return (self.rank or 0) + (self.rotary_width or 0)
        return (self.kv_heads or 0) * ((self.key_width or 0) + (self.value_width or 0))

    @property
    def bytes_per_token(self) -> int:
        """Over all layers that keep every token, at 16 bits per element, undivided; without an indexer's keys."""
        return self.layers * self.width * ELEMENT_BYTES

    @property
    def is_likely(self) -> bool:
        """Whether any model would keep as much of a token, over all layers."""
        return (self.layers + self.window_layers) * self.width * ELEMENT_BYTES <= MOST_TOKEN_BYTES


class Shape(Table, frozen=True, kw_only=True):
    """Widths that decide how a model can be split over GPUs, and how large the buffers of a step are."""

    layers: int | None = None
    hidden: int | None = None
    heads: int | None = None
    vocabulary: int | None = None
    inner: int | None = None
    """Of the feed-forward block of a dense layer."""
    experts: int | None = None
    expert_inner: int | None = None
    quantized_block: int | None = None
    """Rows that share a scale (FP8 in blocks): a split must leave whole ones."""


class Override(Table, frozen=True, kw_only=True):
    """What a published recipe says for one GPU generation only."""

    generation: Literal["ampere", "ada", "hopper", "blackwell"]
    args: tuple[str, ...] = ()
    env: dict[str, str] = msgspec.field(default_factory=dict)
    context: int | None = None
    slots: int | None = None
