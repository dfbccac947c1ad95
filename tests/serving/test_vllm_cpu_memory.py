from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from deploy.dimensions import Cache, Shape
from deploy.engine import Settings
from deploy.lockfile import File, Variant
from deploy.memory import Term, total
from serving.engines import vllm_cpu_memory
from tests.serving.engine_cases import variant

GIB = 1 << 30
CODER_0_5B = replace(
    variant(
        "safetensors",
        precision="bf16",
        cache=Cache(kind="gqa", layers=24, kv_heads=2, key_width=64, value_width=64),
        shape=Shape(layers=24, hidden=896, heads=14, vocabulary=151_936, inner=4864),
    ),
    files=(
        File(path="model.safetensors", size=1_260_367_448, sha256=""),
        File(path="config.json", size=492, sha256=""),
    ),
)
DEEPSEEK_V2_LITE = variant(
    "safetensors",
    size=31_400_000_000,
    cache=Cache(kind="mla", layers=27, rank=512, rotary_width=64),
    shape=Shape(layers=27, hidden=2048, heads=16, vocabulary=102_400, inner=10944, experts=64, expert_inner=1408),
)


def settings(context: int = 2048, slots: int = 2, cache: int | None = 64 << 20, batched: int | None = None) -> Settings:
    return Settings(context_tokens=context, slots=slots, threads=2, kv_cache_bytes=cache, batched_tokens=batched)


def lines(weights: Variant, settings: Settings) -> dict[str, Term]:
    found = vllm_cpu_memory.terms(weights, settings)
    assert len({term.name for term in found}) == len(found)
    return {term.name: term for term in found}


@pytest.mark.parametrize(
    ("asked", "seen"),
    [
        (settings(), 4_692_000_000),
        (settings(slots=8, cache=GIB), 5_471_000_000),
        (settings(8192, 2, GIB // 2, 8192), 5_394_000_000),
    ],
)
def test_within_a_tenth_of_what_was_measured(asked: Settings, seen: int) -> None:
    """Sums of VmHWM of a served bf16 Qwen2.5-Coder-0.5B on 2 cores, 2026-11-24."""
    assert total(vllm_cpu_memory.terms(CODER_0_5B, asked)) == pytest.approx(seen, rel=0.1)


def test_a_cache_of_no_given_size_has_the_adapters_own() -> None:
    assert lines(CODER_0_5B, settings(cache=None))["KV cache"].bytes == GIB


def test_a_mapped_file_counts_until_something_takes_its_place() -> None:
    assert lines(CODER_0_5B, settings())["loading"].bytes > 0
    assert "loading" not in lines(CODER_0_5B, settings(cache=GIB))
    parts = (File(path="a.safetensors", size=10**8, sha256=""), File(path="b.safetensors", size=10**8, sha256=""))
    assert "loading" not in lines(replace(CODER_0_5B, files=parts), settings())


def test_32_bit_weights_are_loaded_in_16() -> None:
    half, whole = (lines(replace(CODER_0_5B, precision=name), settings())["weights"].bytes for name in ("fp32", "bf16"))
    assert whole == 2 * half == 1_260_367_448


def test_mla_writes_out_the_scores_of_a_whole_prompt() -> None:
    """8 B per head and pair of tokens, and a mask: a tiny model with 8 heads took 1.2 GB for 4000 tokens."""
    assert lines(DEEPSEEK_V2_LITE, settings(4096))["attention scores"].bytes == 4096**2 * (16 * 8 + 1)
    assert "attention scores" not in lines(CODER_0_5B, settings(4096))


def test_unknown_widths_are_roughly_a_usual_models() -> None:
    unknown = variant("safetensors", size=10**9)
    assert {lines(unknown, settings())[name].confidence for name in ("output layer", "tokenizer")} == {"rough"}
    assert total(vllm_cpu_memory.terms(unknown, settings())) > 10**9 + vllm_cpu_memory.RUNTIME_BYTES


numbers = st.integers(1, 1 << 17)


@given(
    st.sampled_from([CODER_0_5B, DEEPSEEK_V2_LITE]),
    st.tuples(numbers, numbers, numbers),
    st.tuples(numbers, numbers, numbers),
    st.integers(1 << 20, 1 << 34),
)
def test_no_line_shrinks_with_more_context_slots_or_batched_tokens(
    weights: Variant, some: tuple[int, int, int], more: tuple[int, int, int], cache: int
) -> None:
    (context, slots, batched), grown = some, [one + other for one, other in zip(some, more, strict=True)]
    before = lines(weights, settings(context, slots, cache, batched))
    after = lines(weights, settings(grown[0], grown[1], cache, grown[2]))
    assert before.keys() == after.keys()
    assert all(after[name].bytes >= term.bytes for name, term in before.items())


@given(numbers, st.integers(1 << 20, 1 << 33), st.integers(1 << 20, 1 << 33))
def test_more_cache_never_needs_less_memory(context: int, cache: int, more: int) -> None:
    small, large = (
        total(vllm_cpu_memory.terms(CODER_0_5B, settings(context, 2, size))) for size in (cache, cache + more)
    )
    assert large >= small
