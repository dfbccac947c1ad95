"""Context, slots and GPUs: what fits, what is lowered, what never is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.memory import table, total
from deploy.sizing import CPU_SHARE, size
from tests.deploy.boxes import GB, StubEngine, box, gpu, variant

CPU = StubEngine("llamacpp", "cpu", "gguf")
GPU = StubEngine("vllm", "gpu", "safetensors")


def test_plenty_of_memory_gives_the_whole_offer() -> None:
    settings = size(CPU, variant(), box(), context=None, slots=None).settings
    assert settings is not None
    assert (settings.context_tokens, settings.slots, settings.threads) == (8192, 8, 4)
    assert settings.kv_cache_bytes == 8192 * 8 * 12288


def test_less_memory_lowers_slots_before_context() -> None:
    settings = size(CPU, variant(), box(free_bytes=int(1.5 * GB)), context=None, slots=None).settings
    assert settings is not None
    assert settings.context_tokens == 8192
    assert settings.slots == 2


def test_a_models_own_context_is_the_limit() -> None:
    settings = size(CPU, variant(context=4096), box(), context=None, slots=None).settings
    assert settings is not None
    assert settings.context_tokens == 4096


def test_the_users_context_and_slots_are_never_lowered() -> None:
    sized = size(CPU, variant(), box(free_bytes=2 * GB), context=32768, slots=8)
    assert sized.settings is None
    assert "needs 4.3 GB" in sized.reason
    assert "1.8 GB of RAM can be taken" in sized.reason


def test_more_context_than_the_model_has_is_refused_with_the_number() -> None:
    sized = size(CPU, variant(context=4096), box(), context=8192, slots=None)
    assert sized.settings is None
    assert sized.change == "context = 4096"


def test_what_other_models_take_counts() -> None:
    assert size(CPU, variant(), box(free_bytes=3 * GB), context=None, slots=1, taken=0).settings is not None
    assert size(CPU, variant(), box(free_bytes=3 * GB), context=None, slots=1, taken=2 * GB).settings is None


def test_unknown_free_memory_is_said_and_not_guessed() -> None:
    sized = size(CPU, variant(), box(free_bytes=None), context=None, slots=None)
    assert sized.settings is not None
    assert "free RAM unknown" in sized.reason


def test_a_gpu_model_takes_as_few_gpus_as_it_needs() -> None:
    box_of_four = box(gpus=tuple(gpu(index) for index in range(4)))
    one = size(GPU, variant(kind="safetensors", size=16 * GB), box_of_four, context=None, slots=None).settings
    two = size(GPU, variant(kind="safetensors", size=100 * GB), box_of_four, context=None, slots=None).settings
    assert one is not None
    assert one.tensor_parallel == 1
    assert one.gpu_memory_share == 0.92
    assert two is not None
    assert two.tensor_parallel == 2


def test_memory_that_others_hold_on_a_gpu_lowers_the_share() -> None:
    shared = box(gpus=(gpu(total_bytes=100 * GB, free_bytes=50 * GB),))
    settings = size(GPU, variant(kind="safetensors", size=16 * GB), shared, context=None, slots=None).settings
    assert settings is not None
    assert settings.gpu_memory_share == pytest.approx(0.49)


@given(free_bytes=st.integers(0, 64 * GB), weights_bytes=st.integers(1, 64 * GB), kv=st.integers(0, 10**6))
def test_an_offer_always_fits(free_bytes: int, weights_bytes: int, kv: int) -> None:
    chosen = variant(size=weights_bytes, kv=kv)
    settings = size(CPU, chosen, box(free_bytes=free_bytes), context=None, slots=None).settings
    if settings is not None:
        assert total(table(CPU, chosen, settings)) <= free_bytes * CPU_SHARE
