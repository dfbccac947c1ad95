from __future__ import annotations

import msgspec
import pytest

from serving.engines.vllm_quantization import METHODS, doubt, gone, pair, refuse, remark
from tests.serving.engine_cases import QWEN3_8B, gpu, variant


def test_no_word_is_in_two_rows() -> None:
    words = [word for method in METHODS for word in method.words]
    assert len(words) == len(set(words))
    assert all(method.source for method in METHODS)


@pytest.mark.parametrize(
    ("precision", "runs", "refused", "needed"),
    [
        # A T4 is 7.5, an A100 8.0, an RTX 4090 8.9, an H100 9.0, a B200 10.0.
        ("bf16", "8.0", "7.5", "8.0"),
        ("fp16", "7.5", "7.0", "7.5"),
        ("fp8", "7.5", "7.0", "7.5"),
        ("int4", "7.5", "7.0", "7.5"),
        ("awq", "7.5", "7.0", "7.5"),
        ("gptq", "7.5", "6.1", "7.5"),
        ("int8", "7.5", "7.0", "7.5"),
        ("nvfp4", "7.5", "7.0", "7.5"),
        ("mxfp4", "8.0", "7.5", "8.0"),
        ("mxfp8", "8.0", "7.5", "8.0"),
        ("modelopt", "8.0", "7.5", "8.0"),
        ("compressed-tensors", "8.6", "7.0", "7.5"),
        ("a method of tomorrow", "8.0", "7.5", "8.0"),
    ],
)
def test_a_precision_needs_a_compute_capability(precision: str, runs: str, refused: str, needed: str) -> None:
    for spelling in (precision, precision.upper()):
        model = variant("safetensors", precision=spelling)
        assert refuse(model, gpu(runs)) is None
        assert refuse(model, gpu("12.0")) is None
        refusal = refuse(model, gpu(refused))
        assert refusal is not None
        assert f"compute capability {refused}" in refusal.reason
        assert f"needs {needed}" in refusal.reason
        assert "compute capability" in refusal.change


def test_bfloat16_on_a_t4_is_refused_with_what_would_run_there() -> None:
    refusal = refuse(QWEN3_8B, gpu("7.5"))
    assert refusal is not None
    assert "overflow" in refusal.reason
    assert "AWQ" in refusal.change


@pytest.mark.parametrize("precision", ["bitsandbytes", "GGUF"])
def test_what_left_vllm_is_on_no_gpu(precision: str) -> None:
    refusal = gone(variant("safetensors", precision=precision))
    assert refusal is not None
    assert "left vLLM for vllm-" in refusal.reason


def test_an_unknown_capability_is_no_reason_against_a_gpu() -> None:
    assert refuse(QWEN3_8B, gpu(None)) is None
    assert remark(QWEN3_8B, gpu(None)) is None


@pytest.mark.parametrize(
    ("precision", "capability", "said"),
    [
        ("fp8", "8.6", "starts with 8.9"),
        ("fp8", "8.9", None),
        ("nvfp4", "9.0", "starts with 10.0"),
        ("nvfp4", "10.0", None),
        ("mxfp4", "9.0", "starts with 10.0"),
        ("bf16", "8.0", None),
    ],
)
def test_what_is_emulated_is_said(precision: str, capability: str, said: str | None) -> None:
    found = remark(variant("safetensors", precision=precision), gpu(capability))
    assert (found is None) if said is None else (found is not None and said in found)


def test_a_checkpoint_of_blackwell_alone_is_refused_on_hopper() -> None:
    model = variant("safetensors", precision="nvfp4", repo="nvidia/GLM-5.2-NVFP4")
    refusal = refuse(model, gpu("9.0"))
    assert refusal is not None
    assert "needs 10.0 by its recipe" in refusal.reason
    assert refuse(model, gpu("10.0")) is None
    other = msgspec.structs.replace(model, origin=msgspec.structs.replace(model.origin, repo="nvidia/GLM-5-NVFP4"))
    assert refuse(other, gpu("9.0")) is None


def test_capabilities_are_compared_as_numbers() -> None:
    assert pair("10.0") > pair("9.0") > pair("8.9")  # type: ignore[operator]
    assert pair("12") == (12, 0)
    assert pair(None) is None


@pytest.mark.parametrize(
    ("precision", "capability", "doubted"),
    [
        ("fp8", "7.5", True),
        ("int4", "7.5", True),
        ("fp16", "7.5", False),
        ("fp8", "8.0", False),
        ("bf16", "9.0", False),
        ("fp8", None, False),
    ],
)
def test_a_gpu_without_bfloat16_is_a_doubt_whatever_the_weights_are_kept_in(
    precision: str, capability: str | None, doubted: bool
) -> None:
    assert (doubt(variant("safetensors", precision=precision), gpu(capability)) is not None) == doubted
