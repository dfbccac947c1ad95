"""KV cache per token by architecture class: layers, heads and widths in, bytes out.

Only classes that are known to work as their formula says: elsewhere the number would be a guess, and is None.
Sources: vLLM 0.33 and llama.cpp for what each class keeps per layer; checked against the figures of a running vLLM.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

ELEMENT_BYTES = 2
"""The caches are 16 bits wide unless an engine is told otherwise."""
# One key and one value per layer and KV head.
PLAIN = frozenset(
    [
        *("LlamaForCausalLM", "MistralForCausalLM", "MixtralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"),
        *("Qwen2MoeForCausalLM", "Qwen3MoeForCausalLM", "Glm4MoeForCausalLM", "MiniMaxM2ForCausalLM"),
    ]
)
# One compressed vector per layer, and the rotary part of the key beside it. The keys of a sparse indexer, where
# there is one, are not counted: engines that keep them store the rest in 8 bits, which is less together.
MLA = frozenset(
    [
        *("DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM", "DeepseekV32ForCausalLM", "GlmMoeDsaForCausalLM"),
        *("Glm4MoeLiteForCausalLM", "KimiK25ForConditionalGeneration"),
    ]
)
# Plain in some layers; the others keep a state per sequence, whatever its length.
HYBRID = frozenset(
    [
        *("Qwen3NextForCausalLM", "Qwen3_5ForCausalLM", "Qwen3_5MoeForCausalLM"),
        *("Qwen3_5ForConditionalGeneration", "Qwen3_5MoeForConditionalGeneration"),
    ]
)
CLASSES = PLAIN | MLA | HYBRID
"""All of them are in vLLM's own registry."""
GGUF_PLAIN = frozenset(["llama", "qwen2", "qwen3", "qwen2moe", "qwen3moe", "glm4moe", "minimax-m2"])
GGUF_HYBRID = frozenset(["qwen3next", "qwen35", "qwen35moe"])
FULL, LINEAR = "full_attention", "linear_attention"

Kind = Literal["gqa", "mla", "hybrid-gqa"]


class Cache(msgspec.Struct, frozen=True, kw_only=True):
    """``bytes_per_token`` over all layers, at 16 bits per element."""

    kind: Kind
    bytes_per_token: int


def of_config(architecture: str | None, text: Mapping[str, Any]) -> Cache | None:
    """By the dimensions of a config.json (``text``: the language model's own, where it is one part of several)."""
    if architecture in MLA:
        return _mla(text)
    kept = _full_layers(text, hybrid=architecture in HYBRID)
    if architecture not in PLAIN | HYBRID or _is_windowed(text) or not kept:
        return None
    queries, hidden = (whole(text, key) for key in ("num_attention_heads", "hidden_size"))
    heads = whole(text, "num_key_value_heads") or queries
    width = whole(text, "head_dim") or (hidden // queries if hidden and queries else None)
    if not heads or not width:
        return None
    return Cache(
        kind="hybrid-gqa" if architecture in HYBRID else "gqa",
        bytes_per_token=kept * heads * 2 * width * ELEMENT_BYTES,
    )


def of_gguf(architecture: str | None, header: Mapping[str, Any]) -> Cache | None:
    """The same by GGUF's keys, where the KV heads may be given per layer."""
    layers, queries, hidden, interval = (
        whole(header, f"{architecture}.{key}")
        for key in ("block_count", "attention.head_count", "embedding_length", "full_attention_interval")
    )
    every = 1 if architecture in GGUF_PLAIN else interval if architecture in GGUF_HYBRID else None
    if not every or f"{architecture}.attention.sliding_window" in header or not layers or not queries or not hidden:
        return None
    given = header.get(f"{architecture}.attention.head_count_kv")
    if isinstance(given, list):
        heads = sum(count for count in given[every - 1 :: every] if isinstance(count, int) and count > 0)
    else:
        heads = layers // every * (whole(header, f"{architecture}.attention.head_count_kv") or queries)
    widths = [
        whole(header, f"{architecture}.attention.{part}_length") or hidden // queries for part in ("key", "value")
    ]
    return Cache(kind="gqa" if every == 1 else "hybrid-gqa", bytes_per_token=heads * sum(widths) * ELEMENT_BYTES)


def whole(table: Mapping[str, Any], key: str) -> int | None:
    """A number of that name, where it is one that a model can have."""
    value = table.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 48 else None


def _mla(text: Mapping[str, Any]) -> Cache | None:
    layers, rank, rotary = (whole(text, key) for key in ("num_hidden_layers", "kv_lora_rank", "qk_rope_head_dim"))
    if not layers or not rank or rotary is None:
        return None
    return Cache(kind="mla", bytes_per_token=layers * (rank + rotary) * ELEMENT_BYTES)


def _full_layers(text: Mapping[str, Any], *, hybrid: bool) -> int | None:
    """How many layers keep a key and a value per token; None where that is not said, or where it is not all of it."""
    layers = whole(text, "num_hidden_layers")
    kinds = text.get("layer_types")
    allowed = {FULL, LINEAR} if hybrid else {FULL}
    if kinds:
        known = isinstance(kinds, list) and all(isinstance(kind, str) and kind in allowed for kind in kinds)
        return kinds.count(FULL) if known else None
    if hybrid:
        interval = whole(text, "full_attention_interval")
        return layers // interval if layers and interval else None
    # MiniMax's way to say it, 1 being full attention.
    marks = text.get("attn_type_list") or []
    return layers if isinstance(marks, list) and all(mark == 1 for mark in marks) else None


def _is_windowed(text: Mapping[str, Any]) -> bool:
    return text.get("sliding_window") is not None and text.get("use_sliding_window") is not False
