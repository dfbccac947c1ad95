"""Tiny configurations of the architectures whose KV caches differ: a config.json and a tokenizer, no weights.

The shape of each is its family's; the widths of what it keeps are real where an engine's kernels insist on them (MLA:
512 + 64), and the rest is as small as they take. Source of the keys: the families' own configurations on the Hub.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests import tiny
from tests.checkpoint import describe, write_tokenizer

WINDOW = 32768
HIDDEN, INNER, HEADS = 256, 512, 8
COMMON = {
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_attention_heads": HEADS,
    "max_position_embeddings": WINDOW,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "attention_bias": False,
    "tie_word_embeddings": False,
}
GQA = {**COMMON, "num_hidden_layers": 4, "num_key_value_heads": 2, "head_dim": 64}
MLA = {
    **COMMON,
    "num_hidden_layers": 3,
    "num_key_value_heads": HEADS,
    "q_lora_rank": 64,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
}
EXPERTS = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 128, "norm_topk_prob": True}
ROUTED = {
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 128,
    "first_k_dense_replace": 1,
    "norm_topk_prob": True,
    "routed_scaling_factor": 1.0,
    "scoring_func": "sigmoid",
    "topk_method": "noaux_tc",
}
LINEAR = {
    "linear_num_key_heads": 4,
    "linear_num_value_heads": 8,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_conv_kernel_dim": 4,
    "full_attention_interval": 4,
    "partial_rotary_factor": 0.25,
}

CONFIGS: dict[str, dict[str, Any]] = {
    "qwen3": {**GQA, "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"},
    "qwen3-moe": {
        **GQA,
        **EXPERTS,
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
    },
    # Eight layers, not four: then each group of layers holds two.
    "qwen3-next": {
        **GQA,
        **EXPERTS,
        **LINEAR,
        "architectures": ["Qwen3NextForCausalLM"],
        "model_type": "qwen3_next",
        "num_hidden_layers": 8,
        "shared_expert_intermediate_size": 128,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
    },
    "deepseek-v3": {
        **MLA,
        **ROUTED,
        "architectures": ["DeepseekV3ForCausalLM"],
        "model_type": "deepseek_v3",
        "n_group": 4,
        "topk_group": 2,
    },
    "kimi-k2": {
        **MLA,
        **ROUTED,
        "architectures": ["DeepseekV3ForCausalLM"],
        "model_type": "kimi_k2",
        "n_group": 1,
        "topk_group": 1,
    },
    "glm-4-moe": {
        **GQA,
        **ROUTED,
        "architectures": ["Glm4MoeForCausalLM"],
        "model_type": "glm4_moe",
        "n_group": 1,
        "topk_group": 1,
        "partial_rotary_factor": 0.5,
        "use_qk_norm": True,
    },
    "glm-4.7-flash": {
        **MLA,
        **ROUTED,
        "architectures": ["Glm4MoeLiteForCausalLM"],
        "model_type": "glm4_moe_lite",
        "n_group": 1,
        "topk_group": 1,
    },
}
"""By the catalogue's names of the families' models."""


def folder(name: str, path: Path) -> Path:
    """Write what an engine needs to load that architecture with weights that it makes up. Returns ``path``."""
    path.mkdir(parents=True, exist_ok=True)
    words = tiny.vocabulary()
    write_tokenizer(path, words, window=WINDOW)
    describe(path, vocabulary=words, vocab_size=len(words.tokens) + len(words.added), **CONFIGS[name])
    return path
