from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.dimensions import Recurrent, Shape
from deploy.engine import Split
from deploy.lockfile import Facts, File, Variant
from serving.engines.vllm_splits import splits
from tests.serving.engine_cases import (
    DEEPSEEK_R1,
    DEEPSEEK_V32,
    GLM_5_FP8,
    MINIMAX_M2,
    QWEN3_8B,
    QWEN3_235B_FP8,
    gpu,
    gqa,
    linked,
    links,
    variant,
)

Plain = tuple[int, int, int, bool]
UNKNOWN = variant("safetensors")


def plain(split: Split) -> Plain:
    return split.tensor, split.pipeline, split.data, split.experts


def over(model: Variant, count: int) -> list[Plain]:
    """The ways over all of so many GPUs with NVLink."""
    found = splits(model, linked(count), links(count, nvlink=True))
    return [plain(split) for split in found if split.gpus == count]


def dense(heads: int, kv_heads: int, inner: int = 4096, layers: int = 24) -> Variant:
    shape = Shape(layers=layers, hidden=1024, heads=heads, vocabulary=32000, inner=inner)
    return variant("safetensors", cache=gqa(layers, kv_heads), shape=shape)


LINEAR = variant(
    "safetensors",
    cache=msgspec.structs.replace(
        gqa(12, 8),
        kind="hybrid-gqa",
        recurrent=Recurrent(layers=36, key_heads=6, value_heads=12, key_width=128, value_width=128, kernel=4),
    ),
    shape=Shape(layers=48, hidden=2048, heads=16, vocabulary=151936),
)


@pytest.mark.parametrize(
    ("model", "count", "expected"),
    [
        pytest.param(QWEN3_8B, 1, [(1, 1, 1, False)], id="Qwen3-8B fits on one GPU of 24 GB"),
        # The recipe pins it: 1536 / 8 = 192 is no multiple of 128, 1536 / 4 = 384 is three blocks.
        pytest.param(QWEN3_235B_FP8, 4, [(4, 1, 1, False)], id="Qwen3-235B FP8 on 4 H100"),
        pytest.param(QWEN3_235B_FP8, 8, [(4, 1, 2, True), (8, 1, 1, True)], id="Qwen3-235B FP8 on 8 H100"),
        pytest.param(MINIMAX_M2, 4, [(4, 1, 1, False)], id="MiniMax-M2 on 4 H100"),
        # Its recipe: pure TP8 is not supported; DP+EP or TP+EP.
        pytest.param(MINIMAX_M2, 8, [(4, 1, 2, True), (8, 1, 1, True)], id="MiniMax-M2 on 8 H100"),
        pytest.param(DEEPSEEK_R1, 8, [(8, 1, 1, True)], id="DeepSeek-R1 on 8 H200, experts whole by its recipe"),
        # Its recipe: -dp 8 --enable-expert-parallel; 128 / 8 = 16 heads would be padded to 64.
        pytest.param(DEEPSEEK_V32, 8, [(1, 1, 8, True), (8, 1, 1, False)], id="DeepSeek-V3.2 on 8 H200"),
        # The same recipe: TP=2 leaves 64 heads.
        pytest.param(DEEPSEEK_V32, 2, [(2, 1, 1, False)], id="DeepSeek-V3.2 on 2"),
        # Its recipe: --tensor-parallel-size 8.
        pytest.param(GLM_5_FP8, 8, [(8, 1, 1, False)], id="GLM-5 FP8 on 8 H200"),
    ],
)
def test_published_recipes_are_followed(model: Variant, count: int, expected: list[Plain]) -> None:
    assert over(model, count) == expected


def test_a_recipe_that_keeps_experts_whole_is_followed_on_two_gpus_and_more() -> None:
    model = msgspec.structs.replace(
        QWEN3_235B_FP8,
        facts=msgspec.structs.replace(QWEN3_235B_FP8.facts, vllm_args=("--enable-expert-parallel",)),
    )
    assert [split.experts for split in splits(model, linked(4), ())] == [False, True, True]


def test_fewer_gpus_come_first_and_all_of_them_are_among_the_counts() -> None:
    boxes = {have: splits(QWEN3_8B, linked(have), links(have, nvlink=True)) for have in (1, 3, 6, 8)}
    counts = {have: [split.gpus for split in found] for have, found in boxes.items()}
    assert counts == {1: [1], 3: [1, 2, 3], 6: [1, 2, 4, 6], 8: [1, 2, 4, 8]}
    assert splits(QWEN3_8B, (), ()) == ()


@pytest.mark.parametrize(
    ("model", "count", "expected"),
    [
        # Qwen2.5-0.5B has 14 heads: two halves, and the rest in stages.
        (dense(14, 2), 4, [(2, 2, 1, False)]),
        (dense(14, 2), 8, [(2, 4, 1, False)]),
        # Four KV heads are copied for 8 ranks; of three, which two cannot share, no copy is even.
        (dense(32, 4), 8, [(8, 1, 1, False)]),
        (dense(12, 3), 2, [(1, 2, 1, False)]),
        (dense(9, 3), 2, [(1, 2, 1, False)]),
        (dense(32, 8, inner=4100), 8, [(4, 2, 1, False)]),
        (LINEAR, 8, [(2, 4, 1, False)]),
        # More stages than layers: no way at all.
        (dense(9, 3, layers=2), 3, []),
    ],
)
def test_what_cannot_be_cut_is_put_in_stages(model: Variant, count: int, expected: list[Plain]) -> None:
    assert over(model, count) == expected


@pytest.mark.parametrize(("count", "expected"), [(3, (1, 3, 1, False)), (6, (2, 3, 1, False)), (5, (1, 5, 1, False))])
def test_a_number_of_gpus_that_is_no_power_of_two_is_put_in_stages(count: int, expected: Plain) -> None:
    assert over(QWEN3_8B, count) == [expected]


def test_gpus_that_do_not_reach_each_other_hand_layers_on() -> None:
    pair = tuple(gpu("8.9", index, nvlink=False) for index in range(2))
    apart = [plain(split) for split in splits(QWEN3_8B, pair, links(2, peer=False))]
    assert apart == [(1, 1, 1, False), (1, 2, 1, False), (2, 1, 1, False)]
    for path in (links(2, peer=True), links(2, peer=None), links(2, peer=False, nvlink=True), ()):
        assert [plain(split) for split in splits(QWEN3_8B, pair, path)] == [(1, 1, 1, False), (2, 1, 1, False)]


def test_links_of_other_gpus_say_nothing_of_these() -> None:
    far = tuple(gpu(index=index) for index in (4, 5))
    assert [split.tensor for split in splits(QWEN3_8B, far, links(2, peer=False))] == [1, 2]


def test_a_process_is_given_one_mig_slice_at_most() -> None:
    slices = tuple(msgspec.structs.replace(gpu(index=index), slice_of=0) for index in (1, 2))
    assert [plain(split) for split in splits(QWEN3_8B, slices, ())] == [(1, 1, 1, False)]


def test_a_model_of_unknown_shape_is_cut_by_powers_of_two_and_says_so() -> None:
    found = splits(UNKNOWN, linked(8), ())
    assert [plain(split) for split in found] == [(n, 1, 1, False) for n in (1, 2, 4, 8)]
    assert all("not known" in split.doubt for split in found[1:])
    assert not found[0].doubt


def test_of_an_fp8_repository_that_nobody_has_read_the_usual_blocks_are_assumed() -> None:
    """Qwen3-Coder-480B has experts of 2560: 2560 / 8 = 320 is no multiple of 128."""
    shape = Shape(layers=62, hidden=6144, heads=96, vocabulary=151936, experts=160, expert_inner=2560)
    unread = msgspec.structs.replace(QWEN3_235B_FP8, files=(), precision="fp8", facts=Facts(shape=shape))
    read = msgspec.structs.replace(unread, files=(File(path="model.safetensors", size=1, sha256="a" * 64),))
    whole = (8, 1, 1, False)
    assert whole not in [plain(split) for split in splits(unread, linked(8), ())]
    assert whole in [plain(split) for split in splits(read, linked(8), ())]


def test_the_reason_names_the_arithmetic() -> None:
    *_, split = splits(QWEN3_235B_FP8, linked(8), ())
    assert "1536 / 8 = 192" in split.because
    assert "128" in split.because
    assert "16 of 64 heads each" in splits(QWEN3_235B_FP8, linked(4), ())[-1].because


def test_a_precision_that_the_gpus_have_no_hardware_for_is_said() -> None:
    nvfp4 = msgspec.structs.replace(QWEN3_8B, precision="nvfp4")
    assert all("nvfp4 is unpacked to 16 bits" in split.because for split in splits(nvfp4, linked(2), ()))
    assert not any("unpacked" in split.because for split in splits(nvfp4, linked(2, "10.0"), ()))


@st.composite
def shapes(draw: st.DrawFn) -> tuple[Shape, int]:
    """With a number of KV heads."""
    width, experts = draw(st.integers(1, 1 << 14)), draw(st.none() | st.integers(2, 256))
    shape = Shape(
        layers=24,
        hidden=1024,
        heads=draw(st.integers(1, 128)),
        inner=None if experts else width,
        experts=experts,
        expert_inner=width if experts else None,
        quantized_block=draw(st.none() | st.just(128)),
    )
    return shape, draw(st.integers(1, 32))


@given(model=shapes(), count=st.integers(1, 16))
def test_every_way_is_one_that_vllm_takes(model: tuple[Shape, int], count: int) -> None:
    shape, kv_heads = model
    found = splits(variant("safetensors", cache=gqa(24, kv_heads), shape=shape), linked(count), ())
    assert [split.gpus for split in found] == sorted(split.gpus for split in found)
    assert found[0].gpus == 1
    assert found[-1].gpus <= count
    for split in found:
        assert split.because
        assert (shape.heads or 0) % split.tensor == 0
        assert kv_heads % split.tensor == 0 or split.tensor % kv_heads == 0
        assert split.data == 1 or split.experts
        rank, left = divmod(shape.expert_inner or shape.inner or 0, split.tensor)
        if not split.experts:
            assert left == 0
            assert split.tensor == 1 or not shape.quantized_block or rank % shape.quantized_block == 0
