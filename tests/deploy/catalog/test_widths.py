"""Dimensions of our rows: each is what it was derived from, and enough to choose how a model is split."""

from __future__ import annotations

import re

import pytest

from deploy import catalog
from deploy.catalog import Row, sketch
from deploy.dimensions import Recurrent, Shape
from deploy.engine import Split
from serving.engines import VllmGpu
from tests.deploy import boxes

ROWS = [row for row in catalog.ours() if row.shape]
BLOCKED = {
    *("deepseek-ai/DeepSeek-R1", "deepseek-ai/DeepSeek-V3", "deepseek-ai/DeepSeek-V3.1", "deepseek-ai/DeepSeek-V3.2"),
    *("deepseek-ai/DeepSeek-V4-Flash-0731", "moonshotai/Kimi-K2-Instruct"),
    *("MiniMaxAI/MiniMax-M2.5", "MiniMaxAI/MiniMax-M2.7", "zai-org/GLM-5-FP8", "zai-org/GLM-5.1-FP8"),
    *("zai-org/GLM-5.2-FP8", "Qwen/Qwen3-32B-FP8", "Qwen/Qwen3-30B-A3B-FP8", "Qwen/Qwen3.8-2.4T-A95B-FP8"),
}
"""Repositories whose own configuration was read and names FP8 blocks."""
each_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)


def shape(row: Row) -> Shape:
    found = row.facts().shape
    assert found is not None
    return found


def over(name: str, key: str, count: int) -> list[tuple[int, int, int, bool]]:
    """Tensor, pipeline, data parallel and whole experts, of all ways over so many GPUs; the best first."""
    variant = next(one for one in sketch.of(catalog.find(name)) if one.key == key)
    splits: tuple[Split, ...] = VllmGpu().splits(variant, tuple(boxes.gpu(index).gpu for index in range(count)), ())
    return [
        (one.tensor, one.pipeline, one.data, one.experts)
        for one in splits
        if one.tensor * one.pipeline * one.data == count
    ]


@each_row
def test_widths_name_the_copy_that_they_were_read_from(row: Row) -> None:
    assert row.shape is not None
    assert re.search(r"^[\w.-]+/[\w.-]+@[0-9a-f]{40} \S+\.json|^GGUF header ", row.shape.source)


@each_row
def test_widths_and_cache_are_of_the_same_model(row: Row) -> None:
    widths = shape(row)
    assert widths.layers
    assert widths.heads
    assert (widths.experts is None) == (widths.expert_inner is None)
    assert widths.experts or row.active_params_b is None
    if row.kv is None:
        return
    assert row.kv.layers == widths.layers
    assert (row.kv.kv_layers or 0) < widths.layers
    assert widths.heads % (row.kv.kv_heads or 1) == 0


@each_row
def test_a_hybrids_layers_are_full_or_linear(row: Row) -> None:
    if row.kv is not None and row.kv.kind == "hybrid-gqa":
        assert row.kv.recurrent is not None
        assert row.kv.recurrent.layers + (row.kv.kv_layers or 0) == row.kv.layers
        assert row.kv.recurrent.value_heads % row.kv.recurrent.key_heads == 0


def test_what_a_hybrid_keeps_per_sequence_reaches_the_sketch() -> None:
    found = catalog.find("qwen3.6-35b-a3b").facts().cache
    assert found is not None
    assert found.recurrent == Recurrent(
        layers=30, key_heads=16, value_heads=32, key_width=128, value_width=128, kernel=4, element_bytes=4
    )


def test_layers_without_an_indexer_of_their_own_reach_the_sketch() -> None:
    found = {name: catalog.find(name).facts().cache for name in ("glm-5.1", "glm-5.2")}
    assert {name: one and one.indexer_layers for name, one in found.items()} == {"glm-5.1": None, "glm-5.2": 21}


def test_blocks_belong_to_the_weights_whose_configuration_names_them() -> None:
    blocks: dict[str, int | None] = {}
    for row in ROWS:
        assert shape(row).quantized_block is None
        for one in row.weights:
            found = row.facts(one).shape
            blocks[one.hf_repo] = found and found.quantized_block
    assert {repo for repo, block in blocks.items() if block == 128} == BLOCKED
    assert {block for repo, block in blocks.items() if repo not in BLOCKED} == {None}


def test_eight_gpus_cannot_cut_the_experts_of_minimax_m2_in_fp8() -> None:
    # 1536 / 8 = 192 is not a multiple of 128; four ranks have three whole blocks each.
    ways = over("minimax-m2.5", "safetensors/fp8", 8)
    assert ways[0] == (4, 1, 2, True)
    assert (8, 1, 1, False) not in ways
    assert (4, 1, 1, False) in over("minimax-m2.5", "safetensors/fp8", 4)
    assert (8, 1, 1, False) in over("minimax-m2.5", "safetensors/nvfp4", 8)


def test_eight_gpus_hold_eight_copies_of_the_attention_of_deepseek_v3_2() -> None:
    assert over("deepseek-v3.2", "safetensors/fp8", 8)[0] == (1, 1, 8, True)


def test_a_dense_model_is_cut_by_its_heads() -> None:
    assert over("deepseek-r1-distill-qwen-32b", "safetensors/bf16", 8) == [(8, 1, 1, False)]
    # 40 heads are not shared by 16.
    assert over("deepseek-r1-distill-qwen-32b", "safetensors/bf16", 16) == [(8, 2, 1, False)]
