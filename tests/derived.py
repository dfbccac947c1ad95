"""A *derived* artefact: the official Qwen2.5-Coder-0.5B GGUF, dequantised to a Hugging Face folder in bf16.

vLLM reads no GGUF, so this is how the same weights come to it, for tests and comparisons only: on a GPU box the
official safetensors are served. The folder says what it is in ``derived.json``. The same GGUF gives the same bytes,
every time; ``SHA256`` is what two independent ways of making them agreed on.

The output layer is not tied to the embedding although the original's is: the GGUF stores the two in different
precisions. Qwen2's q and k rows need no permutation.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from gguf import MODEL_ARCH, GGUFReader, ReaderTensor, TokenType, dequantize, get_tensor_name_map

from tests.checkpoint import Floats, Tensor, Vocabulary, describe, write_json, write_safetensors, write_tokenizer

SHA256 = "df8f6054b92991e0e1c748f8e5c6dcd289f0798d8a5200745ec8c0ffc752a8df"

ENDS = ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight")
LAYER = (
    "input_layernorm.weight",
    "post_attention_layernorm.weight",
    *(f"self_attn.{part}_proj.{kind}" for part in "qkv" for kind in ("weight", "bias")),
    "self_attn.o_proj.weight",
    *(f"mlp.{part}_proj.weight" for part in ("gate", "up", "down")),
)
ROWS_AT_ONCE = 8192


def huggingface(gguf: Path, folder: Path) -> Path:
    """Write ``folder`` (1.3 GB) from the official ``gguf``; returns it. ``derived.json`` comes last: then it is whole.

    Raises ValueError where other tensors come out than the agreed ones.
    """
    folder.mkdir(parents=True, exist_ok=True)
    reader = GGUFReader(gguf)
    facts = {name: field.contents() for name, field in reader.fields.items()}
    words = _vocabulary(facts)
    weights = folder / "model.safetensors"
    write_safetensors(weights, _tensors(reader, facts["qwen2.block_count"]))
    if (found := _sha256(weights)) != SHA256:
        raise ValueError(f"{weights} has sha256 {found}, not {SHA256}")
    write_tokenizer(folder, words, window=facts["qwen2.context_length"])
    describe(folder, vocabulary=words, **_architecture(facts))
    write_json(
        folder / "derived.json",
        {
            "what": "dequantised to bf16 for tests and comparisons; not an official release",
            "source_name": gguf.name,
            "source_sha256": _sha256(gguf),
            "tool": f"gguf {importlib.metadata.version('gguf')}",
        },
    )
    return folder


def _tensors(reader: GGUFReader, layers: int) -> dict[str, Tensor]:
    stored = {tensor.name: tensor for tensor in reader.tensors}
    known = get_tensor_name_map(MODEL_ARCH.QWEN2, layers)
    names = [*ENDS, *(f"model.layers.{layer}.{part}" for layer in range(layers) for part in LAYER)]
    found = {name: stored.pop(str(known.get_name(name, (".weight", ".bias")))) for name in names}
    if stored:
        raise ValueError(f"tensors that no Qwen2 has: {', '.join(stored)}")
    return {name: _tensor(tensor) for name, tensor in found.items()}


def _tensor(stored: ReaderTensor) -> Tensor:
    shape = tuple(int(side) for side in reversed(stored.shape))
    packed = stored.data.reshape(shape[0], -1) if len(shape) > 1 else stored.data.reshape(1, -1)

    def rows() -> Iterator[Floats]:
        for start in range(0, len(packed), ROWS_AT_ONCE):
            values = dequantize(packed[start : start + ROWS_AT_ONCE], stored.tensor_type)
            yield np.ascontiguousarray(values, dtype=np.float32)

    return Tensor(shape, rows)


def _vocabulary(facts: dict[str, Any]) -> Vocabulary:
    """The unused rows that pad the embedding stay out: the tokenizer must not know them."""
    tokens, kinds = facts["tokenizer.ggml.tokens"], facts["tokenizer.ggml.token_type"]
    added = (TokenType.CONTROL, TokenType.USER_DEFINED)
    return Vocabulary(
        tokens=[token for token, kind in zip(tokens, kinds, strict=True) if kind == TokenType.NORMAL],
        merges=facts["tokenizer.ggml.merges"],
        added={token: kind == TokenType.CONTROL for token, kind in zip(tokens, kinds, strict=True) if kind in added},
        template=facts["tokenizer.chat_template"],
    )


def _architecture(facts: dict[str, Any]) -> dict[str, Any]:
    def fact(name: str) -> Any:
        return facts[f"qwen2.{name}"]

    return {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "vocab_size": len(facts["tokenizer.ggml.tokens"]),
        "hidden_size": fact("embedding_length"),
        "intermediate_size": fact("feed_forward_length"),
        "num_hidden_layers": fact("block_count"),
        "num_attention_heads": fact("attention.head_count"),
        "num_key_value_heads": fact("attention.head_count_kv"),
        "max_position_embeddings": fact("context_length"),
        # A float32 in the file: six digits are what it holds.
        "rms_norm_eps": float(f"{fact('attention.layer_norm_rms_epsilon'):.6g}"),
        "rope_theta": float(fact("rope.freq_base")),
        "tie_word_embeddings": False,
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
