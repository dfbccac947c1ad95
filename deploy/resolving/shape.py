"""Widths of a model that decide how it can be split and how large a step's buffers are, from what it says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deploy.dimensions import Shape
from deploy.resolving.counts import below, some, whole
from deploy.resolving.gguf_header import Header

EXPERTS = ("num_experts", "n_routed_experts", "num_local_experts")
GGUF_KEYS = {
    "hidden": "embedding_length",
    "heads": "attention.head_count",
    "inner": "feed_forward_length",
    "experts": "expert_count",
    "expert_inner": "expert_feed_forward_length",
}
TOKENS = "tokenizer.ggml.tokens"


def of_config(text: Mapping[str, Any], config: Mapping[str, Any]) -> Shape | None:
    """By config.json; None where it names no width. ``text``: the language model's own part of the whole ``config``,
    where the quantization may be."""
    inner, expert_inner = (some(text, key) for key in ("intermediate_size", "moe_intermediate_size"))
    if "num_local_experts" in text and expert_inner is None:
        # Mixtral's way, which MiniMax and gpt-oss follow: there is no dense layer that the name could mean.
        inner, expert_inner = None, inner
    elif text.get("mlp_only_layers") == [] and text.get("decoder_sparse_step") == 1:
        # Qwen's way to say that every layer has experts: the width is of a dense layer that is never built.
        inner = None
    return _known(
        Shape(
            layers=some(text, "num_hidden_layers"),
            hidden=some(text, "hidden_size"),
            heads=some(text, "num_attention_heads"),
            vocabulary=some(text, "vocab_size"),
            inner=inner,
            experts=next((count for count in (some(text, key) for key in EXPERTS) if count), None),
            expert_inner=expert_inner,
            quantized_block=_block(config) or _block(text),
        )
    )


def of_gguf(architecture: str | None, header: Header) -> Shape | None:
    """The same by a GGUF header. The vocabulary is as long as the list of its tokens; its size is stated rarely."""
    own = below(header.values, architecture)
    return _known(
        Shape(
            layers=gguf_layers(own),
            vocabulary=header.lengths.get(TOKENS) or some(own, "vocab_size"),
            **{name: some(own, key) for name, key in GGUF_KEYS.items()},
        )
    )


def gguf_layers(own: Mapping[str, Any]) -> int | None:
    """Those that an answer goes through: all blocks but the last ones, if any, that guess the token after the next.

    ``own``: the keys of the architecture.
    """
    blocks, guessing = some(own, "block_count"), whole(own, "nextn_predict_layers") or 0
    return blocks - guessing if blocks and blocks > guessing else None


def _known(shape: Shape) -> Shape | None:
    return None if shape == Shape() else shape


def _block(table: Mapping[str, Any]) -> int | None:
    quantized = table.get("quantization_config")
    size = quantized.get("weight_block_size") if isinstance(quantized, dict) else None
    return some({"rows": size[0]}, "rows") if isinstance(size, list) and size else None
