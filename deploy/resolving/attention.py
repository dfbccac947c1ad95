"""What a model keeps per token and per sequence, by its architecture class: a config.json in, ``Cache`` out.

Only classes that are known to work as their formula says: elsewhere it would be a guess, and is None.
Sources: vLLM 0.32 and 0.33 for what each class keeps per layer, and transformers for what it fills in where a
configuration is silent; checked against the figures of a running vLLM.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from deploy.dimensions import ELEMENT_BYTES, Cache, Recurrent
from deploy.resolving.counts import some

# One key and one value per layer and KV head.
PLAIN = frozenset(
    [
        *("LlamaForCausalLM", "MistralForCausalLM", "MixtralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"),
        *("Qwen2MoeForCausalLM", "Qwen3MoeForCausalLM", "Glm4MoeForCausalLM", "MiniMaxM2ForCausalLM"),
        "GptOssForCausalLM",
    ]
)
# One compressed vector per layer, and the rotary part of the key beside it.
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
SPARSE = frozenset(["DeepseekV32ForCausalLM", "GlmMoeDsaForCausalLM"])
"""Of MLA, those with an indexer, whose keys are kept too."""
STRIPED = frozenset(["LlamaForCausalLM", "MistralForCausalLM", "GptOssForCausalLM"])
"""Each layer can have a window or none."""
ALIKE = frozenset(["LlamaForCausalLM", "MistralForCausalLM", "MixtralForCausalLM"])
"""All layers have the window, where there is one and layers are not told apart."""
SWITCHED = frozenset(["Qwen2ForCausalLM", "Qwen3ForCausalLM", "Qwen2MoeForCausalLM", "Qwen3MoeForCausalLM"])
"""A window is off unless `use_sliding_window` says otherwise."""
DERIVED = frozenset([*ALIKE, "Qwen2ForCausalLM", "Qwen2MoeForCausalLM", "Qwen3MoeForCausalLM"])
"""A head is as wide as the model divided by its heads, unless stated. Others have a number of their own."""
STATED_STATE = HYBRID - {"Qwen3NextForCausalLM"}
"""`mamba_ssm_dtype` says how wide the state's elements are. For Qwen3-Next nobody reads it."""
STATE_BYTES = {None: ELEMENT_BYTES, "bfloat16": 2, "float16": 2, "float32": 4}
FULL, LINEAR, SLIDING = "full_attention", "linear_attention", "sliding_attention"


class Layers(NamedTuple):
    """How many keep every token, a window of them, or a state instead."""

    full: int
    windowed: int = 0
    linear: int = 0


def of_config(architecture: str | None, text: Mapping[str, Any]) -> Cache | None:
    """By the dimensions of a config.json (``text``: the language model's own, where it is one part of several)."""
    if architecture in MLA:
        return _mla(architecture, text)
    layers = _layers(architecture, text)
    heads, width = _kv_heads(architecture, text), _width(architecture, text)
    if layers is None or heads is None or width is None:
        return None
    window = some(text, "sliding_window") if layers.windowed else None
    if layers.windowed and window is None:
        return None
    return Cache(
        kind="hybrid-gqa" if layers.linear else "gqa",
        layers=layers.full,
        kv_heads=heads,
        key_width=width,
        value_width=width,
        window=window,
        window_layers=layers.windowed,
        recurrent=_recurrent(architecture, text, layers.linear),
    )


def _mla(architecture: str | None, text: Mapping[str, Any]) -> Cache | None:
    layers, rank, rotary = (some(text, key) for key in ("num_hidden_layers", "kv_lora_rank", "qk_rope_head_dim"))
    if not layers or not rank or not rotary:
        return None
    if architecture not in SPARSE and text.get("index_topk") is None:
        return Cache(kind="mla", layers=layers, rank=rank, rotary_width=rotary)
    width, indexed = some(text, "index_head_dim"), _indexed(text, layers)
    if not width or not indexed:
        return None
    return Cache(
        kind="mla",
        layers=layers,
        rank=rank,
        rotary_width=rotary,
        indexer_width=width,
        indexer_layers=indexed if indexed < layers else None,
    )


def _indexed(text: Mapping[str, Any], layers: int) -> int | None:
    """How many layers have an indexer; the others use what an earlier one found."""
    pattern = text.get("index_topk_pattern")
    if pattern is not None:
        return layers - pattern[:layers].count("S") if isinstance(pattern, str) else None
    every, first = (
        some(text, key) if key in text else usual
        for key, usual in (("index_topk_freq", 1), ("index_skip_topk_offset", 2))
    )
    return min(first, layers) + max(0, layers - first) // every if every and first else None


def _layers(architecture: str | None, text: Mapping[str, Any]) -> Layers | None:
    """None where it is not said, or where it is not all of it."""
    count, kinds = some(text, "num_hidden_layers"), text.get("layer_types")
    if count is None or architecture not in PLAIN | HYBRID:
        return None
    if kinds:
        return _named(architecture, kinds, count)
    if architecture in HYBRID:
        interval = some(text, "full_attention_interval")
        full = count // interval if interval else 0
        return Layers(full, linear=count - full) if full else None
    if architecture == "GptOssForCausalLM":
        return Layers(count // 2, windowed=count - count // 2)
    return _uniform(architecture, text, count)


def _named(architecture: str | None, kinds: object, count: int) -> Layers | None:
    """One name per layer."""
    if not isinstance(kinds, list) or len(kinds) != count:
        return None
    named = Counter(kind for kind in kinds if isinstance(kind, str))
    windowed = named[SLIDING] if architecture in STRIPED else 0
    linear = named[LINEAR] if architecture in HYBRID else 0
    found = Layers(named[FULL], windowed, linear)
    return found if sum(found) == count and linear < count else None


def _uniform(architecture: str | None, text: Mapping[str, Any], count: int) -> Layers | None:
    """All layers alike."""
    # MiniMax's way to name them, 1 being full attention.
    marks = text.get("attn_type_list") or []
    if not isinstance(marks, list) or any(mark != 1 for mark in marks):
        return None
    if architecture == "MistralForCausalLM" and "sliding_window" not in text:
        return None  # a window is usual there, as long as nothing says that there is none
    if not text.get("sliding_window") or (architecture in SWITCHED and not text.get("use_sliding_window")):
        return Layers(count)
    return Layers(0, windowed=count) if architecture in ALIKE else None


def _kv_heads(architecture: str | None, text: Mapping[str, Any]) -> int | None:
    """Of Llama every head has its own where nothing is said; the others have a number of their own."""
    silent = architecture == "LlamaForCausalLM" and text.get("num_key_value_heads") is None
    return some(text, "num_attention_heads" if silent else "num_key_value_heads")


def _width(architecture: str | None, text: Mapping[str, Any]) -> int | None:
    if architecture not in DERIVED or text.get("head_dim") is not None:
        return some(text, "head_dim")
    return share(some(text, "hidden_size"), some(text, "num_attention_heads"))


def _recurrent(architecture: str | None, text: Mapping[str, Any], layers: int) -> Recurrent | None:
    stated = text.get("mamba_ssm_dtype") if architecture in STATED_STATE else None
    return linear_state(
        layers,
        heads=(some(text, "linear_num_key_heads"), some(text, "linear_num_value_heads")),
        widths=(some(text, "linear_key_head_dim"), some(text, "linear_value_head_dim")),
        kernel=some(text, "linear_conv_kernel_dim"),
        element_bytes=STATE_BYTES.get(stated) if isinstance(stated, str) or stated is None else None,
    )


def linear_state(
    layers: int,
    *,
    heads: tuple[int | None, int | None],
    widths: tuple[int | None, int | None],
    kernel: int | None,
    element_bytes: int | None,
) -> Recurrent | None:
    """What linear layers keep, where there are any and all of it is known. Heads and widths: of keys, of values."""
    (keys, values), (key, value) = heads, widths
    if not (layers and keys and values and key and value and kernel and element_bytes):
        return None
    return Recurrent(
        layers=layers,
        key_heads=keys,
        value_heads=values,
        key_width=key,
        value_width=value,
        kernel=kernel,
        element_bytes=element_bytes,
    )


def share(total: int | None, parts: int | None) -> int | None:
    """The width of one of equal parts."""
    return total // parts or None if total and parts else None
