from __future__ import annotations

import pytest

from deploy import catalog
from deploy.dimensions import Override
from deploy.lockfile import Facts
from serving.engines.vllm_recipe import flags, unasked, variables


@pytest.mark.parametrize(
    "words",
    [
        ("--trust-remote-code",),
        ("--host=0.0.0.0",),
        ("-tp", "8"),
        ("--tool-parser-plugin", "x.py"),
        ("--chat-template", "x.jinja"),
        ("--max-model-len", "1"),
        ("--compilation-config", '{"backend":"os.system"}'),
        ("--compilation-config", '{"mode":3,"inductor_passes":{"a":"os.system"}}'),
        ("--compilation-config.backend=os.system",),
        ("--compilation-config", "not JSON"),
        ("--compilation-config", "[]"),
        ("--compilation-config",),
    ],
)
def test_code_addresses_and_sizes_are_no_recipes(words: tuple[str, ...]) -> None:
    expected = words[0].partition("=")[0]
    assert unasked(Facts(vllm_args=("--tool-call-parser", "hermes", *words))) == expected
    assert unasked(Facts(overrides=(Override(generation="hopper", args=words),))) == expected


@pytest.mark.parametrize(
    "words",
    [
        ("--kernel-config.enable_flashinfer_autotune=False",),
        ("--attention_config.backend", "FLASHINFER"),
        ("--compilation-config", '{"mode": 0, "cudagraph_mode": "FULL_DECODE_ONLY"}'),
        ("--compilation-config.cudagraph_mode=PIECEWISE",),
        ("--compilation-config.pass_config.fuse_minimax_qk_norm=true",),
    ],
)
def test_what_recipes_say_may_be_handed_over(words: tuple[str, ...]) -> None:
    assert unasked(Facts(vllm_args=words)) is None


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({"VLLM_USE_DEEP_GEMM": "0"}, None),
        ({"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}, None),
        ({"LD_PRELOAD": "x.so"}, "LD_PRELOAD"),
        ({"VLLM_PLUGINS": "x"}, "VLLM_PLUGINS"),
        ({"VLLM_SERVER_DEV_MODE": "1"}, "VLLM_SERVER_DEV_MODE"),
        ({"VLLM_USE_DEEP_GEMM": "0\n"}, "VLLM_USE_DEEP_GEMM"),
        ({"VLLM_USE_DEEP_GEMM": "/tmp/x"}, "VLLM_USE_DEEP_GEMM"),
    ],
)
def test_variables_are_those_of_recipes(env: dict[str, str], expected: str | None) -> None:
    assert unasked(Facts(overrides=(Override(generation="hopper", env=env),))) == expected


@pytest.mark.parametrize("row", catalog.rows(), ids=lambda row: row.id)
def test_every_recipe_of_the_catalogue_may_be_handed_over(row: catalog.Row) -> None:
    assert [unasked(row.facts(weights)) for weights in (None, *row.weights)] == [None] * (1 + len(row.weights))


def test_a_tool_parser_is_switched_on_once() -> None:
    assert flags(Facts(vllm_args=("--tool-call-parser", "hermes")), None)[-1] == "--enable-auto-tool-choice"
    ready = ("--enable-auto-tool-choice", "--tool-call-parser", "glm47")
    assert flags(Facts(vllm_args=ready), None) == ready
    assert flags(Facts(), None) == ()


def test_what_the_plan_splits_is_not_the_recipes() -> None:
    assert flags(Facts(vllm_args=("--enable-expert-parallel", "--kv-cache-dtype", "fp8")), None) == (
        "--kv-cache-dtype",
        "fp8",
    )


def test_another_generations_words_are_left_out() -> None:
    facts = Facts(
        vllm_args=("--kv-cache-dtype", "fp8_e4m3"),
        overrides=(Override(generation="hopper", args=("--kv-cache-dtype", "fp8"), env={"VLLM_USE_DEEP_GEMM": "0"}),),
    )
    assert flags(facts, "hopper") == ("--kv-cache-dtype", "fp8_e4m3", "--kv-cache-dtype", "fp8")
    assert variables(facts, "hopper") == {"VLLM_USE_DEEP_GEMM": "0"}
    for other in ("blackwell", None):
        assert flags(facts, other) == ("--kv-cache-dtype", "fp8_e4m3")
        assert variables(facts, other) == {}
