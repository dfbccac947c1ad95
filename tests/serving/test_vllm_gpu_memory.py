from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.dimensions import Shape
from deploy.engine import Settings, Split
from deploy.hardware import Gpu
from deploy.lockfile import Variant
from deploy.memory import Term, total
from serving.engines.vllm_gpu_memory import batched_tokens, graphs, terms
from tests.serving.engine_cases import (
    DEEPSEEK_R1,
    DEEPSEEK_V32,
    GB,
    GIB,
    GLM_5_FP8,
    MINIMAX_M2,
    QWEN3_8B,
    QWEN3_32B_AWQ,
    QWEN3_235B_FP8,
    box,
    gpu,
    linked,
    variant,
)

H100_BYTES = 85_520_809_984
H200_BYTES = 150_754_820_096
RTX_4090_BYTES = 25_757_220_864
MODELS = (QWEN3_8B, QWEN3_235B_FP8, MINIMAX_M2, DEEPSEEK_R1, DEEPSEEK_V32, GLM_5_FP8)


def settings(
    split: Split = Split(),  # noqa: B008 - frozen
    *,
    context: int = 8192,
    slots: int = 64,
    batched: int | None = 8192,
    cache: int | None = None,
) -> Settings:
    return Settings(
        context_tokens=context, slots=slots, threads=1, split=split, batched_tokens=batched, kv_cache_bytes=cache
    )


def table(model: Variant, wanted: Settings, *gpus: Gpu) -> dict[str, Term]:
    return {term.name: term for term in terms(model, wanted, box(*(gpus or (gpu(),))))}


def left(model: Variant, wanted: Settings, device_bytes: int, share: float = 0.92) -> float:
    """For the KV cache of a device, as vLLM shares its memory out."""
    return device_bytes * share - total(terms(model, wanted, box(gpu(memory_bytes=device_bytes))))


def test_a_published_cache_of_qwen3_8b_on_one_h100_is_met() -> None:
    """327 requests of 1152 tokens at a memory share of 0.9 were reported (the model's KV arithmetic: 147456 B each);
    vLLM's defaults on this card are 1024 requests and 8192 batched tokens."""
    reported = 327 * 1152 * 147_456
    found = left(QWEN3_8B, settings(context=1152, slots=1024), H100_BYTES, share=0.9)
    assert found == pytest.approx(reported, rel=0.02)


@pytest.mark.parametrize(
    ("model", "split", "device_bytes", "cache_bytes"),
    [
        # The recipes' own minimums; the cache that must be left is one context of 8192 tokens at 16 bits.
        pytest.param(QWEN3_8B, Split(), RTX_4090_BYTES, 8192 * 147_456, id="Qwen3-8B in 24 GB"),
        pytest.param(QWEN3_32B_AWQ, Split(), RTX_4090_BYTES, 8192 * 262_144, id="Qwen3-32B-AWQ in 24 GB"),
        pytest.param(MINIMAX_M2, Split(tensor=4), H100_BYTES, 8192 * 63_488, id="MiniMax-M2 in 4 of 80 GB"),
        pytest.param(
            DEEPSEEK_R1, Split(tensor=8, experts=True), H200_BYTES, 8192 * 70_272, id="DeepSeek-R1 in 8 of 141 GB"
        ),
        pytest.param(
            DEEPSEEK_V32, Split(data=8, experts=True), H200_BYTES, 8192 * 48_068, id="DeepSeek-V3.2 in 8 of 141 GB"
        ),
        pytest.param(GLM_5_FP8, Split(tensor=8), H200_BYTES, 8192 * 89_856, id="GLM-5 FP8 in 8 of 141 GB"),
    ],
)
def test_published_minimums_are_met(model: Variant, split: Split, device_bytes: int, cache_bytes: int) -> None:
    wanted = settings(split, slots=8, batched=2048)
    assert left(model, wanted, device_bytes) > cache_bytes


@pytest.mark.parametrize(
    ("model", "split", "device_bytes"),
    [
        pytest.param(QWEN3_8B, Split(), 16_106_127_360, id="Qwen3-8B is too large for 16 GB"),
        pytest.param(DEEPSEEK_R1, Split(tensor=8, experts=True), H100_BYTES, id="DeepSeek-R1 for 8 of 80 GB"),
        pytest.param(MINIMAX_M2, Split(tensor=2), H100_BYTES, id="MiniMax-M2 for 2 of 80 GB"),
    ],
)
def test_what_is_known_to_be_too_large_is(model: Variant, split: Split, device_bytes: int) -> None:
    assert left(model, settings(split, slots=1, batched=2048), device_bytes) < 0


@pytest.mark.parametrize(
    ("slots", "expected"),
    [
        # Logs of starts: PIECEWISE=51 (largest=512), FULL=35 (largest=256); 35 (256) and 19 (128).
        (256, 51 + 35),
        (128, 35 + 19),
        (1, 2 + 1),
    ],
)
def test_graphs_are_captured_as_logs_have_it(slots: int, expected: int) -> None:
    assert graphs(slots, 8192, "9.0") == expected


def test_a_data_centre_blackwell_captures_larger_steps_and_small_steps_bound_them() -> None:
    assert graphs(1024, 8192, "10.0") > graphs(1024, 8192, "9.0") == graphs(1024, 8192, "12.0")
    assert graphs(1024, 64, "9.0") < graphs(1024, 8192, "9.0")


def test_tensor_parallel_ranks_hold_equal_shares_and_a_little_more() -> None:
    whole = table(QWEN3_8B, settings())["weights"].bytes
    half = table(QWEN3_8B, settings(Split(tensor=2)))["weights"].bytes
    assert whole == QWEN3_8B.size
    assert half == pytest.approx(whole * 0.505, rel=1e-6)


def test_with_data_parallel_only_experts_are_shared_out() -> None:
    """DeepSeek-V3 has 654 of its 671 billion parameters in experts: 58 layers * 256 * 3 * 7168 * 2048."""
    found = table(DEEPSEEK_V32, settings(Split(data=8, experts=True)))
    experts = 58 * 256 * 3 * 7168 * 2048 / 671e9
    assert found["experts"].bytes == pytest.approx(DEEPSEEK_V32.size * experts / 8, rel=0.01)
    assert found["weights"].bytes == pytest.approx(DEEPSEEK_V32.size * (1 - experts), rel=0.1)


def test_a_rank_is_sent_the_tokens_of_all_that_share_experts_with_it() -> None:
    four, eight = (table(DEEPSEEK_V32, settings(Split(data=n, experts=True)))["activations"].bytes for n in (4, 8))
    assert 1.8 * four < eight < 2 * four
    cut, whole = (
        table(DEEPSEEK_R1, settings(Split(tensor=8, experts=experts), context=128))["activations"].bytes
        for experts in (False, True)
    )
    assert cut < whole


def test_requests_are_shared_out_among_data_parallel_ranks() -> None:
    shared, alone = settings(Split(data=8, experts=True), slots=64), settings(slots=8)
    assert table(DEEPSEEK_V32, shared)["CUDA graphs"] == table(DEEPSEEK_V32, alone)["CUDA graphs"]


def test_the_card_it_is_given_decides() -> None:
    both = (gpu("9.0", 0), gpu("10.0", 1))
    first, second = (
        table(QWEN3_8B, msgspec.structs.replace(settings(slots=1024), devices=(index,)), *both)["CUDA graphs"].bytes
        for index in (0, 1)
    )
    assert first < second


def test_a_dense_model_is_whole_on_every_data_parallel_rank() -> None:
    assert table(QWEN3_8B, settings(Split(data=4)))["weights"].bytes == QWEN3_8B.size


def test_the_fullest_stage_of_a_pipeline_has_the_most_layers_and_an_embedding() -> None:
    edge = 151_936 * 4096 * 2
    per_layer = (QWEN3_8B.size - 2 * edge) / 36
    assert table(QWEN3_8B, settings(Split(pipeline=5)))["weights"].bytes == pytest.approx(8 * per_layer + edge, abs=1)
    unknown = variant("safetensors", size=10 * GB)
    stage = table(unknown, settings(Split(pipeline=5)))["weights"]
    assert (stage.bytes, stage.confidence) == (2 * GB, "rough")


def test_what_is_stored_in_32_bits_is_loaded_in_16() -> None:
    model = msgspec.structs.replace(QWEN3_8B, precision="fp32", size=32 * GB)
    assert table(model, settings())["weights"].bytes == 16 * GB


def test_the_cache_is_a_line_where_its_size_is_planned() -> None:
    assert table(QWEN3_8B, settings(cache=5 * GB))["KV cache"].bytes == 5 * GB
    assert "KV cache" not in table(QWEN3_8B, settings())


def test_ranks_that_talk_to_each_other_need_buffers() -> None:
    assert "communication" not in table(QWEN3_8B, settings())
    two, eight = (table(QWEN3_8B, settings(Split(tensor=n)), *linked(8))["communication"].bytes for n in (2, 8))
    assert eight == 7 * two


def test_a_model_of_unknown_widths_has_lines_all_the_same() -> None:
    found = table(variant("safetensors", size=10 * GB), settings())
    assert found["activations"].bytes == GB
    assert "not known" in found["activations"].formula
    assert found["CUDA graphs"].bytes > 0


def test_prompts_are_expanded_by_mla_and_not_by_its_sparse_kind() -> None:
    long = settings(Split(tensor=8), context=131_072, batched=2048, slots=1)
    dense, sparse = (table(model, long)["activations"].bytes for model in (DEEPSEEK_R1, DEEPSEEK_V32))
    # 64k cached tokens, 16 heads, 256 wide, 2 bytes.
    assert dense - sparse == 65_536 * 16 * 256 * 2


def test_the_engines_own_default_of_batched_tokens_goes_by_the_card() -> None:
    a100 = msgspec.structs.replace(gpu("8.0"), name="NVIDIA A100-SXM4-80GB")
    cards = (gpu(), a100, gpu("8.9", memory_bytes=24 * GIB), gpu("10.0", memory_bytes=180 * GIB), None)
    assert [batched_tokens(card) for card in cards] == [8192, 2048, 2048, 16384, 2048]
    free, set_to = (table(QWEN3_8B, settings(batched=batched)) for batched in (None, 8192))
    assert free == set_to


@given(
    model=st.sampled_from([*MODELS, variant("safetensors", size=GB, shape=Shape(hidden=1024))]),
    split=st.sampled_from([Split(), Split(tensor=4), Split(tensor=2, pipeline=3), Split(data=8, experts=True)]),
    sizes=st.tuples(st.integers(1, 1 << 20), st.integers(1, 2048), st.integers(1, 1 << 15)),
    more=st.tuples(st.integers(0, 1 << 20), st.integers(0, 2048), st.integers(0, 1 << 15)),
)
def test_more_of_anything_never_makes_a_line_smaller(
    model: Variant, split: Split, sizes: tuple[int, int, int], more: tuple[int, int, int]
) -> None:
    small, large = (
        table(model, settings(split, context=context, slots=slots, batched=batched))
        for context, slots, batched in (sizes, tuple(map(sum, zip(sizes, more, strict=True))))
    )
    assert list(small) == list(large)
    assert all(term.bytes <= large[name].bytes for name, term in small.items())
    assert all(term.formula and term.source for term in small.values())
