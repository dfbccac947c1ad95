"""How ways are compared, and what a promise lacks."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.engine import Settings, Split
from deploy.planning.budget import RAM
from deploy.planning.way import Wanted, Way, beside, halved, kept, shortfalls
from tests.deploy.boxes import GB, VLLM_GPU, variant

SETTINGS = Settings(context_tokens=32768, slots=64, threads=1)


def way(size: int = 10 * GB, **settings: Any) -> Way:
    chosen = variant(kind="safetensors", size=size)
    asked = msgspec.structs.replace(SETTINGS, **settings)
    return Way(
        engine=VLLM_GPU,
        variant=chosen,
        settings=asked,
        memory=VLLM_GPU.memory(chosen, asked, None),  # type: ignore[arg-type]
        taken={},
        room_bytes=None,
        kv_tokens=None,
        wanted_tokens=32768,
        limits=(),
        because=(),
    )


@pytest.mark.parametrize(
    ("start", "least", "found"),
    [(8192, 2048, (8192, 4096, 2048)), (40960, 9000, (40960, 20480, 10240)), (1000, 2048, (1000,)), (1, 1, (1,))],
)
def test_halving_stops_above_the_least_and_keeps_the_start(start: int, least: int, found: tuple[int, ...]) -> None:
    assert halved(start, least) == found


@given(st.integers(1, 1 << 21), st.integers(1, 4096))
def test_halving_goes_as_far_as_it_may(start: int, least: int) -> None:
    found = halved(start, least)
    assert found[0] == start
    assert all(value >= least for value in found[1:])
    assert found[-1] // 2 < least


@pytest.mark.parametrize(
    ("asked", "window", "device", "tokens"),
    [
        (None, 131072, "cpu", 8192),
        (None, 131072, "gpu", 32768),
        (None, 4096, "gpu", 4096),
        (None, None, "cpu", 8192),
        (100_000, 4096, "cpu", 100_000),
    ],
)
def test_the_context_that_is_wanted(asked: int | None, window: int | None, device: str, tokens: int) -> None:
    assert Wanted(context=asked).tokens(variant(context=window), device) == tokens


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (way(context_tokens=32768), way(size=20 * GB, context_tokens=16384)),
        (way(size=20 * GB, context_tokens=32768), way(context_tokens=131072)),
        (way(slots=8), way(size=20 * GB, slots=7)),
        (way(size=20 * GB, slots=8), way(slots=64)),
        (way(context_tokens=32768, slots=1), way(context_tokens=16384, slots=8)),
        (way(context_tokens=65536, slots=8), way(context_tokens=32768)),
        (way(slots=128, batched_tokens=2048), way(slots=64, batched_tokens=8192)),
        (way(slots=32, split=Split(tensor=2)), way(slots=16)),
        (way(slots=32), way(slots=256, split=Split(tensor=2))),
        (way(batched_tokens=8192), way(batched_tokens=2048)),
        (way(split=Split(tensor=2)), way(split=Split(tensor=4))),
    ],
    ids=[
        *("wanted context", "bits", "a few slots", "bits before more slots", "wanted context before a few slots"),
        *("more context", "slots", "useful slots", "GPUs not slots", "steps", "fewer GPUs"),
    ],
)
def test_what_makes_a_way_better(better: Way, worse: Way) -> None:
    assert better.rank > worse.rank


def test_variants_are_ordered_by_how_much_of_the_weights_they_keep() -> None:
    """Bits decide, though a file of fewer can be larger; then whose they are; then the file. A method stands for four
    bits, and a name that says nothing for none."""
    order = [
        variant(precision="bf16", size=10),
        variant(precision="fp8", size=20),
        variant(precision="Q8_0", size=19),
        msgspec.structs.replace(variant(precision="int8", size=90), quantized_by="someone"),
        variant(precision="awq", size=60),
        variant(precision="Q4_K_M", size=50),
        variant(precision="nvfp4", size=40),
        variant(precision="GPTQ", size=30),
        variant(precision="IQ2_XXS", size=80),
        variant(precision="unheard-of", size=100),
    ]
    assert sorted(order[::-1], key=kept, reverse=True) == order


def test_what_the_promise_lacks_is_said() -> None:
    few = msgspec.structs.replace(SETTINGS, context_tokens=4096, slots=1)
    assert shortfalls(few, Wanted(), 8192) == (
        "a context of 4096 tokens, less than the 8192 that a plan aims for",
        "1 at once, fewer than the 8 that a plan aims for",
    )
    assert shortfalls(SETTINGS, Wanted(), 32768) == ()


def test_slots_that_were_asked_for_are_no_limit() -> None:
    few = msgspec.structs.replace(SETTINGS, slots=2)
    assert shortfalls(few, Wanted(slots=2), 32768) == ()
    assert shortfalls(few, Wanted(modest=True), 32768) == ()


def test_what_other_models_hold_is_told_where_they_hold_something() -> None:
    assert beside({0: GB, 1: 3 * GB, RAM: 2 * GB}) == " beside the 3.0 GB of other models"
    assert beside({}) == beside({0: 0}) == ""
