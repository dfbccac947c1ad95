"""What llama.cpp keeps per token and per sequence of a model, by its architecture: a GGUF header in, ``Cache`` out.

As in ``deploy.resolving.attention`` what is not known to work so is None. Source: llama.cpp's models and caches, and
the sizes that a running one (b11549) logs for tiny models of deepseek2, qwen35 and gpt-oss.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deploy.dimensions import Cache
from deploy.resolving.attention import Layers, linear_state, share
from deploy.resolving.counts import below, some
from deploy.resolving.shape import gguf_layers

PLAIN = frozenset(["llama", "qwen2", "qwen3", "qwen2moe", "qwen3moe", "glm4moe", "minimax-m2"])
HYBRID = frozenset(["qwen3next", "qwen35", "qwen35moe"])
MLA = frozenset(["deepseek2"])
STRIPED = frozenset(["gpt-oss"])
"""Every second layer, the first among them, has a window."""
INTERVAL = 4
"""Of a hybrid one layer in so many is a full one, where nothing is said."""
STATE_BYTES = 4
"""The states of linear layers are kept in 32 bits, whatever the weights are."""
WINDOW = "attention.sliding_window"


def of_gguf(architecture: str | None, values: Mapping[str, Any]) -> Cache | None:
    """By a header's metadata. KV heads given layer by layer must be the same in all layers that keep tokens."""
    own = below(values, architecture)
    if architecture in MLA:
        return _mla(own)
    layers = _layers(architecture, own)
    heads = _kv_heads(own, layers) if layers else None
    key, value = (_width(own, f"attention.{part}_length") for part in ("key", "value"))
    if layers is None or heads is None or key is None or value is None:
        return None
    return Cache(
        kind="hybrid-gqa" if layers.linear else "gqa",
        layers=layers.full,
        kv_heads=heads,
        key_width=key,
        value_width=value,
        window=some(own, WINDOW) if layers.windowed else None,
        window_layers=layers.windowed,
        recurrent=linear_state(
            layers.linear,
            heads=(some(own, "ssm.group_count"), some(own, "ssm.time_step_rank")),
            widths=(some(own, "ssm.state_size"), share(some(own, "ssm.inner_size"), some(own, "ssm.time_step_rank"))),
            kernel=some(own, "ssm.conv_kernel"),
            element_bytes=STATE_BYTES,
        ),
    )


def _mla(own: Mapping[str, Any]) -> Cache | None:
    """Of a file that carries the compressed form. An older one is unfolded, head by head."""
    layers = gguf_layers(own)
    rank, rotary, key = (
        some(own, name) for name in ("attention.kv_lora_rank", "rope.dimension_count", "attention.key_length")
    )
    folded = all(some(own, f"attention.{part}_length_mla") for part in ("key", "value"))
    if not layers or not rank or not rotary or not folded or key != rank + rotary:
        return None
    return Cache(kind="mla", layers=layers, rank=rank, rotary_width=rotary)


def _layers(architecture: str | None, own: Mapping[str, Any]) -> Layers | None:
    count = gguf_layers(own)
    if count is None:
        return None
    if architecture in STRIPED:
        known = some(own, WINDOW) and own.get(f"{WINDOW}_pattern", 2) == 2
        return Layers(count // 2, windowed=count - count // 2) if known else None
    if WINDOW in own:
        return None
    if architecture in HYBRID and "attention.recurrent_layers" not in own:
        full = count // _interval(own)
        return Layers(full, linear=count - full) if full else None
    return Layers(count) if architecture in PLAIN else None


def _interval(own: Mapping[str, Any]) -> int:
    return some(own, "full_attention_interval") or INTERVAL


def _kv_heads(own: Mapping[str, Any], layers: Layers) -> int | None:
    given = own.get("attention.head_count_kv")
    if not isinstance(given, list):
        return some(own, "attention.head_count" if given is None else "attention.head_count_kv")
    every = _interval(own) if layers.linear else 1
    kept = given[: sum(layers)][every - 1 :: every]
    agreed = len(given) >= sum(layers) and all(count == kept[0] for count in kept)
    return some({"kept": kept[0]}, "kept") if agreed else None


def _width(own: Mapping[str, Any], name: str) -> int | None:
    if name in own:
        return some(own, name)
    return share(some(own, "embedding_length"), some(own, "attention.head_count"))
