"""One real-shaped repository per model family: everything as its publisher has it, except that the tensors are tiny.

Configurations carry the real dimensions and quantization; tokenizer files, chat template, licence and code lie where
the real repository has them, with contents made up; tensor names are those of a few real layers.
Sources: the configurations in ai-dynamo/aiconfigurator and vllm-project/recipes (2026-08), the catalogue.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.hubrepo import Repo
from tests.shards import (
    Shapes,
    attention,
    dense,
    embedding,
    experts,
    fp8,
    gguf_parts,
    head,
    minimax_experts,
    mla,
    shard,
)

FP8 = {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [128, 128]}
TEMPLATE = "{%- for message in messages %}{{ message.role }}: {{ message.content }}\n{%- endfor %}{# NAME #}"
SPLIT = "Q4_K_M/Qwen3-235B-A22B-Instruct-2507-Q4_K_M-0000{}-of-00003.gguf"
KIMI_CODE = ("configuration_deepseek.py", "modeling_deepseek.py", "tokenization_kimi.py", "tool_declaration_ts.py")


def template(name: str) -> str:
    """The chat template of that family."""
    return TEMPLATE.replace("NAME", name)


def deepseek_v3_2() -> Repo:
    """MLA with a sparse indexer, FP8 in blocks, no chat template at all: the vendor renders prompts by a script."""
    config = _deepseek(num_hidden_layers=61, num_attention_heads=128, num_key_value_heads=128, n_routed_experts=256) | {
        "architectures": ["DeepseekV32ForCausalLM"],
        "model_type": "deepseek_v32",
        "max_position_embeddings": 163840,
        "index_head_dim": 128,
        "index_n_heads": 64,
        "index_topk": 2048,
        "quantization_config": FP8 | {"scale_fmt": "ue8m0"},
        "torch_dtype": "bfloat16",
    }
    indexer = {f"model.layers.1.self_attn.indexer.{part}": ("BF16", (2, 2)) for part in ("weights_proj.weight",)}
    shards = (
        embedding() | mla(0, fp8) | dense(0, fp8),
        mla(1, fp8) | fp8("model.layers.1.self_attn.indexer.wk") | indexer | experts(1, fp8),
        mla(61, fp8) | fp8("model.layers.61.eh_proj") | head(),
    )
    extra = {
        "encoding/encoding_dsv32.py": b"def encode_messages(messages): ...\n",
        "inference/model.py": b"class Transformer: ...\n",
        "assets/paper.pdf": b"%PDF",
    }
    return _repo("deepseek-ai/DeepSeek-V3.2", config, shards, _tokenizer({}), extra, license="mit")


def qwen3_8b() -> Repo:
    """Plain grouped attention in bf16; the template lies in tokenizer_config.json."""
    config = {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "max_position_embeddings": 40960,
        "sliding_window": None,
        "use_sliding_window": False,
        "torch_dtype": "bfloat16",
        "vocab_size": 151936,
    }
    shards = (embedding() | attention(0) | dense(0), attention(1) | dense(1) | head())
    tokenizer = _tokenizer({"chat_template": template("qwen3")}, "vocab.json", "merges.txt")
    return _repo("Qwen/Qwen3-8B", config, shards, tokenizer, {}, license="apache-2.0")


def qwen3_5_27b() -> Repo:
    """Multimodal hybrid: dimensions one level down, every fourth layer full, the template in a file of its own."""
    text = {
        "model_type": "qwen3_5_text",
        "attn_output_gate": True,
        "dtype": "bfloat16",
        "full_attention_interval": 4,
        "head_dim": 256,
        "hidden_size": 5120,
        "intermediate_size": 17408,
        "layer_types": (["linear_attention"] * 3 + ["full_attention"]) * 16,
        "linear_conv_kernel_dim": 4,
        "linear_key_head_dim": 128,
        "linear_num_key_heads": 16,
        "linear_num_value_heads": 48,
        "linear_value_head_dim": 128,
        "mamba_ssm_dtype": "float32",
        "max_position_embeddings": 262144,
        "num_attention_heads": 24,
        "num_hidden_layers": 64,
        "num_key_value_heads": 4,
        "vocab_size": 248320,
    }
    config = {
        "architectures": ["Qwen3_5ForConditionalGeneration"],
        "model_type": "qwen3_5",
        "image_token_id": 248056,
        "text_config": text,
        "vision_config": {"depth": 27, "hidden_size": 1152, "model_type": "qwen3_5", "patch_size": 16},
    }
    base = "model.language_model."
    linear = {f"{base}layers.0.linear_attn.{name}": ("BF16", (2,)) for name in ("A_log", "dt_bias", "conv1d.weight")}
    vision = {f"model.visual.blocks.0.attn.{name}": ("BF16", (2, 2)) for name in ("qkv.weight", "proj.weight")}
    shards = (embedding(base) | linear | dense(0, base=base), attention(3, base=base) | vision | head())
    files = {
        "chat_template.jinja": template("qwen3.5").encode(),
        "preprocessor_config.json": b'{"image_processor_type": "Qwen2VLImageProcessorFast", "patch_size": 16}\n',
        "video_preprocessor_config.json": b'{"video_processor_type": "Qwen3VLVideoProcessor"}\n',
    }
    tokenizer = _tokenizer({}, "vocab.json", "merges.txt")
    return _repo("Qwen/Qwen3.5-27B", config, shards, tokenizer, files, license="apache-2.0")


def glm_4_5_air() -> Repo:
    """Grouped attention with experts in bf16; the head for the next token but one is no layer of the model."""
    config = {
        "architectures": ["Glm4MoeForCausalLM"],
        "model_type": "glm4_moe",
        "first_k_dense_replace": 1,
        "head_dim": 128,
        "hidden_size": 4096,
        "intermediate_size": 10944,
        "max_position_embeddings": 131072,
        "moe_intermediate_size": 1408,
        "n_routed_experts": 128,
        "num_attention_heads": 96,
        "num_hidden_layers": 46,
        "num_key_value_heads": 8,
        "num_nextn_predict_layers": 1,
        "torch_dtype": "bfloat16",
        "vocab_size": 151552,
    }
    shards = (embedding() | attention(0) | dense(0), attention(1) | experts(1), attention(46) | head())
    files = {"chat_template.jinja": template("glm-4.5").encode()}
    return _repo("zai-org/GLM-4.5-Air", config, shards, _tokenizer({}), files, license="mit", licence_text=False)


def glm_5() -> Repo:
    """MLA with a sparse indexer in bf16."""
    config = _deepseek(num_hidden_layers=78, num_attention_heads=64, num_key_value_heads=64, n_routed_experts=256) | {
        "architectures": ["GlmMoeDsaForCausalLM"],
        "model_type": "glm_moe_dsa",
        "hidden_size": 6144,
        "head_dim": 64,
        "index_head_dim": 128,
        "index_n_heads": 32,
        "index_topk": 2048,
        "intermediate_size": 12288,
        "max_position_embeddings": 202752,
        "q_lora_rank": 2048,
        "qk_nope_head_dim": 192,
        "v_head_dim": 256,
        "vocab_size": 154880,
        "dtype": "bfloat16",
    }
    indexer = {f"model.layers.1.self_attn.indexer.{part}.weight": ("BF16", (2, 2)) for part in ("wk", "wq_b")}
    shards = (embedding() | mla(0) | dense(0), mla(1) | indexer | experts(1), mla(78) | head())
    files = {"chat_template.jinja": template("glm-5").encode()}
    return _repo("zai-org/GLM-5", config, shards, _tokenizer({}), files, license="mit", licence_text=False)


def kimi_k2() -> Repo:
    """DeepSeek's class, which engines have; a tokenizer of its own, which they have not; a licence with a name only."""
    config = _deepseek(num_hidden_layers=61, num_attention_heads=64, num_key_value_heads=64, n_routed_experts=384) | {
        "architectures": ["DeepseekV3ForCausalLM"],
        "model_type": "kimi_k2",
        "auto_map": {
            "AutoConfig": "configuration_deepseek.DeepseekV3Config",
            "AutoModel": "modeling_deepseek.DeepseekV3Model",
            "AutoModelForCausalLM": "modeling_deepseek.DeepseekV3ForCausalLM",
        },
        "max_position_embeddings": 131072,
        "quantization_config": FP8,
        "torch_dtype": "bfloat16",
        "vocab_size": 163840,
    }
    tokenizer = {
        "tokenizer_class": "TikTokenTokenizer",
        "auto_map": {"AutoTokenizer": ["tokenization_kimi.TikTokenTokenizer", None]},
        "chat_template": template("kimi-k2"),
    }
    shards = (embedding() | mla(0, fp8) | dense(0, fp8), mla(1, fp8) | experts(1, fp8), head())
    files = {
        "tiktoken.model": b"IQ== 0\n",
        "tokenizer_config.json": _json(tokenizer),
        "THIRD_PARTY_NOTICES.md": b"DeepSeek-V3: MIT\n",
        **{name: f"# {name}\nimport torch\n".encode() for name in KIMI_CODE},
    }
    card = {"license_name": "modified-mit"}
    return _repo("moonshotai/Kimi-K2-Instruct", config, shards, {}, files, license="other", card=card)


def minimax_m2() -> Repo:
    """Grouped attention with experts in FP8; it brings code that engines no longer need; no type named beside FP8."""
    config = {
        "architectures": ["MiniMaxM2ForCausalLM"],
        "model_type": "minimax_m2",
        "attn_type_list": [1] * 62,
        "auto_map": {
            "AutoConfig": "configuration_minimax_m2.MiniMaxM2Config",
            "AutoModelForCausalLM": "modeling_minimax_m2.MiniMaxM2ForCausalLM",
        },
        "head_dim": 128,
        "hidden_size": 3072,
        "intermediate_size": 1536,
        "max_position_embeddings": 196608,
        "num_attention_heads": 48,
        "num_hidden_layers": 62,
        "num_key_value_heads": 8,
        "num_local_experts": 256,
        "quantization_config": FP8 | {"modules_to_not_convert": ["gate", "e_score_correction_bias", "lm_head"]},
        "scoring_func": "sigmoid",
        "use_mtp": True,
        "vocab_size": 200064,
    }
    shards = (
        embedding() | attention(0, fp8) | minimax_experts(0, fp8),
        attention(1, fp8) | minimax_experts(1, fp8),
        head(),
    )
    files = {
        "chat_template.jinja": template("minimax-m2").encode(),
        "configuration_minimax_m2.py": b"from transformers import PretrainedConfig\n",
        "modeling_minimax_m2.py": b"import torch\n",
        "docs/vllm_deploy_guide.md": b"# vLLM\n",
    }
    tokenizer = _tokenizer({}, "vocab.json", "merges.txt")
    card = {"license_name": "modified-mit"}
    return _repo("MiniMaxAI/MiniMax-M2", config, shards, tokenizer, files, license="other", card=card)


def split_gguf(folder: Path) -> Repo:
    """A GGUF in three parts, as llama.cpp splits it, beside another precision of the same model."""
    parts = gguf_parts(folder, template("qwen3-2507"))
    files: dict[str, Any] = {SPLIT.format(number): part for number, part in enumerate(parts, 1)}
    files |= {"Q8_0/other-Q8_0.gguf": b"GGUF", "config.json": b"{}", "LICENSE": b"Apache License\n", "README.md": b"#"}
    return Repo("unsloth/Qwen3-235B-A22B-Instruct-2507-GGUF", "5" * 40, files)


def _repo(
    name: str,
    config: Mapping[str, Any],
    shards: tuple[Shapes, ...],
    tokenizer: Mapping[str, bytes],
    files: Mapping[str, bytes],
    *,
    license: str,
    licence_text: bool = True,
    card: Mapping[str, object] | None = None,
) -> Repo:
    """Large tokenizers are LFS files on the Hub, as the weights are."""
    paths = [f"model-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)]
    weights = {tensor: path for path, shapes in zip(paths, shards, strict=True) for tensor in shapes}
    contents = {
        ".gitattributes": b"*.safetensors filter=lfs\n",
        "README.md": f"# {name}\n".encode(),
        "config.json": _json(config),
        "generation_config.json": _json({"temperature": 0.6, "do_sample": True}),
        "model.safetensors.index.json": _json({"metadata": {"total_size": 0}, "weight_map": weights}),
        **{path: shard(shapes) for path, shapes in zip(paths, shards, strict=True)},
        **tokenizer,
        **files,
    }
    if licence_text:
        contents["LICENSE"] = f"The licence of {name}\n".encode()
    commit = hashlib.sha1(name.encode()).hexdigest()
    return Repo(name, commit, contents, {*paths, "tokenizer.json"}, license, card=card or {})


def _tokenizer(config: Mapping[str, Any], *others: str) -> dict[str, bytes]:
    names = {"tokenizer.json": b'{"version": "1.0", "model": {"type": "BPE"}}\n'}
    return names | {"tokenizer_config.json": _json(config)} | {name: f"{name}\n".encode() for name in others}


def _json(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=2) + "\n").encode()


def _deepseek(**dimensions: int) -> dict[str, Any]:
    """What DeepSeek's, GLM-5's and Kimi's configurations share."""
    return {
        "attention_bias": False,
        "first_k_dense_replace": 3,
        "hidden_size": 7168,
        "intermediate_size": 18432,
        "kv_lora_rank": 512,
        "moe_intermediate_size": 2048,
        "n_shared_experts": 1,
        "num_experts_per_tok": 8,
        "num_nextn_predict_layers": 1,
        "q_lora_rank": 1536,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "vocab_size": 129280,
    } | dimensions
