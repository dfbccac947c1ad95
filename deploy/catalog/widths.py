"""Dimensions of a model as the catalogue's files name them: what it keeps per token and per sequence, its widths."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from deploy.catalog.entry import Entry, Size
from deploy.dimensions import ELEMENT_BYTES, Cache, Recurrent, Shape

MOST_PER_TOKEN = 1 << 30
"""Bytes. The most that one of our rows keeps is 376,832."""


class State(Entry, frozen=True, kw_only=True):
    """Of a hybrid's linear layers, per sequence: ``Recurrent``."""

    layers: Size
    key_heads: Size
    value_heads: Size
    key_width: Size
    value_width: Size
    kernel: Size
    element_bytes: Size = ELEMENT_BYTES


class Kv(Entry, frozen=True, kw_only=True):
    """Dimensions of the KV cache. ``confidence`` derived: from a sibling or a library's defaults.

    The last three kinds have no closed form: what such a model keeps is not known from these.
    """

    kind: Literal["gqa", "mla", "hybrid-gqa", "sparse-gqa", "deepseek-v4-compressed", "kimi-linear+mla"]
    confidence: Literal["config", "derived"] | None = None
    bytes_per_token_bf16: Annotated[int, msgspec.Meta(ge=1, le=MOST_PER_TOKEN)] | None = None
    """Of one token over all layers, at 16 bits per element; without an indexer's keys."""
    layers: Size
    kv_layers: Size | None = None
    """Of a hybrid: the layers that keep something for every token."""
    kv_heads: Size | None = None
    head_dim: Size | None = None
    kv_lora_rank: Size | None = None
    qk_rope_head_dim: Size | None = None
    index_head_dim: Size | None = None
    index_layers: Size | None = None
    """Those with an indexer, where it is not all of them."""
    sliding_window: Size | None = None
    compress_ratios: str | None = None
    recurrent: State | None = None
    note: str | None = None

    @property
    def cache(self) -> Cache | None:
        if self.kind not in ("gqa", "mla", "hybrid-gqa"):
            return None
        return Cache(
            kind=self.kind,
            layers=self.kv_layers or self.layers,
            kv_heads=self.kv_heads,
            key_width=self.head_dim,
            value_width=self.head_dim,
            rank=self.kv_lora_rank,
            rotary_width=self.qk_rope_head_dim,
            indexer_width=self.index_head_dim,
            indexer_layers=self.index_layers,
            recurrent=Recurrent(**msgspec.structs.asdict(self.recurrent)) if self.recurrent else None,
        )


class Widths(Entry, frozen=True, kw_only=True):
    """``Shape``, as the configuration at ``source`` states it."""

    layers: Size | None = None
    hidden: Size | None = None
    heads: Size | None = None
    vocabulary: Size | None = None
    inner: Size | None = None
    experts: Size | None = None
    expert_inner: Size | None = None
    quantized_block: Size | None = None
    """Of the model's own weights; copies in other precisions have their own."""
    source: str

    def of(self, block: int | None) -> Shape:
        """Of weights with scales per so many rows, or with others."""
        stated = {name: getattr(self, name) for name in Shape.__struct_fields__}
        return Shape(**stated | {"quantized_block": block})
