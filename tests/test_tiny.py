"""The tiny checkpoint: the same bytes every time, and one model in two formats."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader

from tests import tiny
from tests.checkpoint import bfloat16


def stored(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file as float32."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    assert start % 8 == 0
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            first, end = entry["data_offsets"]
            bits = np.frombuffer(content[start + first : start + end], np.uint16).astype(np.uint32) << 16
            tensors[name] = bits.view(np.float32).reshape(entry["shape"])
    return tensors


def test_both_formats_hold_the_same_weights(tmp_path: Path) -> None:
    folder = stored(tiny.huggingface(tmp_path / "tiny") / "model.safetensors")
    file = {tensor.name: tensor.data for tensor in GGUFReader(tiny.gguf(tmp_path / "tiny.gguf")).tensors}
    assert len(folder) == len(file)
    assert (folder["lm_head.weight"] == file["output.weight"]).all()
    assert (folder["model.embed_tokens.weight"] == file["token_embd.weight"]).all()
    for layer in range(tiny.LAYERS):
        for ours, theirs in (
            ("self_attn.k_proj", "attn_k"),
            ("self_attn.q_norm", "attn_q_norm"),
            ("mlp.down_proj", "ffn_down"),
        ):
            assert (folder[f"model.layers.{layer}.{ours}.weight"] == file[f"blk.{layer}.{theirs}.weight"]).all()


def test_the_same_bytes_every_time(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        tiny.weights.cache_clear()
        tiny.gguf(folder / "tiny.gguf")
        tiny.huggingface(folder)
    names = sorted(path.name for path in first.iterdir())
    assert names == sorted(path.name for path in second.iterdir())
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in names)


@pytest.mark.parametrize(
    ("value", "rounded"),
    [(1.0, 0x3F80), (1.0 + 2**-8, 0x3F80), (1.0 + 3 * 2**-8, 0x3F82), (1.0 + 2**-8 + 2**-20, 0x3F81), (-2.0, 0xC000)],
)
def test_bfloat16_rounds_to_nearest_even(value: float, rounded: int) -> None:
    assert bfloat16(np.array([value], np.float32)).tolist() == [rounded]
