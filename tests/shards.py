"""Shards with real tensor names and tiny shapes: safetensors layer by layer, and the parts of a split GGUF."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter

Shapes = dict[str, tuple[str, tuple[int, ...]]]
"""Tensor name → type and shape."""
Matrix = Callable[[str], Shapes]
"""The tensors that hold one weight matrix."""

BYTES = {"BF16": 2, "F32": 4, "F8_E4M3": 1}


def shard(shapes: Shapes) -> bytes:
    """A safetensors file of these tensors, with noise for values."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in shapes.items():
        start, end = end, end + prod(shape) * BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + hashlib.shake_128(text).digest(end)


def bf16(name: str) -> Shapes:
    """A matrix as it was trained."""
    return {f"{name}.weight": ("BF16", (2, 4))}


def fp8(name: str) -> Shapes:
    """A matrix in 8 bits, with a scale for each block."""
    return {f"{name}.weight": ("F8_E4M3", (2, 4)), f"{name}.weight_scale_inv": ("F32", (1, 1))}


def embedding(base: str = "model.") -> Shapes:
    """What the model begins with."""
    return bf16(f"{base}embed_tokens")


def head() -> Shapes:
    """What it ends with."""
    return bf16("lm_head") | {"model.norm.weight": ("BF16", (4,))}


def attention(layer: int, matrix: Matrix = bf16, base: str = "model.") -> Shapes:
    """Queries, keys and values of a plain layer."""
    block = f"{base}layers.{layer}.self_attn"
    norms: Shapes = {f"{block}.{name}_norm.weight": ("BF16", (4,)) for name in "qk"}
    return _many((f"{block}.{name}_proj" for name in "qkvo"), matrix) | norms


def mla(layer: int, matrix: Matrix = bf16) -> Shapes:
    """DeepSeek's compressed attention."""
    block = f"model.layers.{layer}.self_attn"
    norms: Shapes = {f"{block}.{name}_a_layernorm.weight": ("BF16", (4,)) for name in ("q", "kv")}
    names = ("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj")
    return _many((f"{block}.{name}" for name in names), matrix) | norms


def dense(layer: int, matrix: Matrix = bf16, base: str = "model.") -> Shapes:
    """The network of a layer without experts."""
    return _many((f"{base}layers.{layer}.mlp.{name}_proj" for name in ("gate", "up", "down")), matrix)


def experts(layer: int, matrix: Matrix = bf16) -> Shapes:
    """Two experts and the shared one, by DeepSeek's and GLM's names."""
    block = f"model.layers.{layer}.mlp"
    gate: Shapes = {f"{block}.gate.weight": ("BF16", (2, 4)), f"{block}.gate.e_score_correction_bias": ("F32", (2,))}
    experts = [f"{block}.{expert}" for expert in ("experts.0", "experts.1", "shared_experts")]
    return gate | _many((f"{one}.{name}_proj" for one in experts for name in ("gate", "up", "down")), matrix)


def minimax_experts(layer: int, matrix: Matrix) -> Shapes:
    """The same by MiniMax's names."""
    block = f"model.layers.{layer}.block_sparse_moe"
    gate: Shapes = {f"{block}.gate.weight": ("F32", (2, 4)), f"{block}.e_score_correction_bias": ("F32", (2,))}
    return gate | _many((f"{block}.experts.{expert}.w{name}" for expert in (0, 1) for name in (1, 2, 3)), matrix)


def gguf_parts(folder: Path, template: str) -> list[Path]:
    """Qwen3-235B-A22B's metadata, then four layers' experts and a norm, in three files of three tensors."""
    writer = GGUFWriter(folder / "split.gguf", "qwen3moe", split_max_tensors=3)
    writer.add_context_length(262144)
    writer.add_block_count(94)
    writer.add_embedding_length(4096)
    writer.add_head_count(64)
    writer.add_head_count_kv(4)
    writer.add_key_length(128)
    writer.add_value_length(128)
    writer.add_chat_template(template)
    writer.add_token_list([f"token {number}" for number in range(3000)])
    for layer in range(4):
        for name, kind, row in (("gate", GGMLQuantizationType.Q4_K, 144), ("down", GGMLQuantizationType.Q6_K, 210)):
            # A row is one block of 256 elements, in as many bytes.
            writer.add_tensor(f"blk.{layer}.ffn_{name}_exps.weight", np.zeros((2, row), np.uint8), raw_dtype=kind)
    writer.add_tensor("output_norm.weight", np.zeros(16, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(folder.glob("split-*.gguf"))


def _many(names: Iterable[str], matrix: Matrix) -> Shapes:
    return {key: value for name in names for key, value in matrix(name).items()}
