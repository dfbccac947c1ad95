"""Which GPU can run which precision in vLLM, by compute capability. Pure.

Source of every row: ``get_min_capability`` of the class that is named, in vLLM 0.33's model_executor/layers/
quantization, unless it says another. What is native is that package's own note, and NVIDIA's table of tensor cores.
"""

from __future__ import annotations

from typing import NamedTuple

from deploy.engine import Refusal
from deploy.hardware import Gpu
from deploy.lockfile import Variant
from deploy.memory import weights_bytes

Capability = tuple[int, int]

TURING, AMPERE, ADA, BLACKWELL = (7, 5), (8, 0), (8, 9), (10, 0)
BUILT_FOR = TURING
"""CUDA 13 compiles for nothing older (its release notes: Maxwell, Pascal and Volta are gone)."""
CARDS = {TURING: "Turing (2018)", AMPERE: "Ampere (2020)", ADA: "Ada (2022)", BLACKWELL: "Blackwell (2024)"}


class Method(NamedTuple):
    """``words``: how a lock says it. ``native``: below that it is computed in another way, slower or in 16 bits."""

    words: frozenset[str]
    needs: Capability
    native: Capability | None
    source: str


def _row(words: str, needs: Capability, source: str, native: Capability | None = None) -> Method:
    return Method(frozenset(words.split()), needs, native, source)


BFLOAT16 = _row("bf16 bfloat16", AMPERE, "platforms/cuda.py, check_if_supports_dtype")
METHODS = (
    BFLOAT16,
    _row("fp16 float16 fp32 float32", TURING, "platforms/cuda.py, supported_dtypes; CUDA 13's own floor"),
    _row("fp8 fp8_per_tensor fp8_per_block fp8_per_channel", TURING, "fp8.Fp8Config", native=ADA),
    _row("mxfp8 modelopt_mxfp8", AMPERE, "modelopt.ModelOptMxFp8Config", native=BLACKWELL),
    _row("modelopt", AMPERE, "modelopt.ModelOptFp8Config", native=ADA),
    _row("nvfp4 modelopt_fp4", TURING, "modelopt.ModelOptNvFp4Config, CompressedTensorsW4A4Fp4", native=BLACKWELL),
    _row("mxfp4 gpt_oss_mxfp4", AMPERE, "mxfp4.Mxfp4Config", native=BLACKWELL),
    # A lock that says no more than 4-bit floats: of the two kinds the one that needs more.
    _row("fp4", AMPERE, "CompressedTensorsW4A4Mxfp4", native=BLACKWELL),
    _row("int4 awq auto_awq awq_marlin", TURING, "auto_awq.AutoAWQConfig, CompressedTensorsWNA16"),
    _row("int8", TURING, "CompressedTensorsW8A8Int8, CompressedTensorsWNA16"),
    _row("gptq auto_gptq gptq_marlin moe_wna16 inc quark", TURING, "6.0 and 7.0 there; CUDA 13's own floor"),
    _row("torchao compressed-tensors", TURING, "torchao.TorchAOConfig; the most that its common schemes need"),
    _row("experts_int8", AMPERE, "experts_int8.ExpertsInt8Config"),
)
GONE = {"gguf": "vllm-gguf-plugin", "bitsandbytes": "vllm-bnb-plugin"}
"""Left vLLM for plugins, which are no part of this build. Source: the list QuantizationMethods of 0.33."""
NO_CPU_KERNEL = frozenset(["nvfp4", "modelopt_fp4", "mxfp4", "gpt_oss_mxfp4", "fp4", "mxfp8", "modelopt_mxfp8"])
BLACKWELL_ONLY = frozenset(["nvidia/GLM-5.2-NVFP4"])
"""Source: vllm-project/recipes, GLM-5.2 (2026-07-12)."""


def gone(variant: Variant) -> Refusal | None:
    """On no device any more."""
    plugin = GONE.get(_word(variant))
    change = "another variant of the model"
    return Refusal(reason=f"{variant.precision} left vLLM for {plugin}", change=change) if plugin else None


def refuse_cpu(variant: Variant) -> Refusal | None:
    """What no kernel of a CPU computes with. Source: vLLM 0.32, model_executor/kernels/linear/__init__.py."""
    if _word(variant) not in NO_CPU_KERNEL:
        return None
    return Refusal(reason=f"vLLM has no CPU kernel for {variant.precision}", change="a bf16, fp8, int8 or int4 variant")


def refuse(variant: Variant, gpu: Gpu) -> Refusal | None:
    """None where the GPU can run it, or where its compute capability is not known."""
    capability = pair(gpu.compute_capability)
    if capability is None:
        return None
    name = f"GPU {gpu.index} ({gpu.name}) has compute capability {gpu.compute_capability}"
    if capability < BUILT_FOR:
        return Refusal(reason=f"{name}, this build needs {_dotted(BUILT_FOR)}", change=_newer(BUILT_FOR))
    if variant.origin.repo in BLACKWELL_ONLY and capability < BLACKWELL:
        reason = f"{name}, {variant.origin.repo} needs {_dotted(BLACKWELL)} by its recipe"
        return Refusal(reason=reason, change=_newer(BLACKWELL))
    method = _method(variant)
    if capability >= method.needs:
        return None
    if method is BFLOAT16:
        return Refusal(reason=f"{name}, bfloat16 needs {_dotted(AMPERE)}{_overflow(variant)}", change=_other_variant())
    return Refusal(reason=f"{name}, {variant.precision} needs {_dotted(method.needs)}", change=_newer(method.needs))


def remark(variant: Variant, gpu: Gpu) -> str | None:
    """What is lost on this GPU though it runs; None where nothing is."""
    capability, native = pair(gpu.compute_capability), _method(variant).native
    if capability is None or native is None or capability >= native:
        return None
    return f"{variant.precision} is unpacked to 16 bits to compute: hardware for it starts with {_dotted(native)}"


def loaded_bytes(variant: Variant) -> int:
    """Of its weights in memory: 32-bit checkpoints are loaded in 16 (config/model.py)."""
    stored = weights_bytes(variant)
    return stored // 2 if _word(variant) in ("fp32", "float32") else stored


def doubt(variant: Variant, gpu: Gpu) -> str | None:
    """Of what runs on a GPU without bfloat16: most models are computed in that, whatever their weights are kept in."""
    capability = pair(gpu.compute_capability)
    if capability is None or capability >= AMPERE or _word(variant) in ("fp16", "float16"):
        return None
    return f"a GPU of {gpu.compute_capability} computes in float16, in which values of a bfloat16 model can overflow"


def pair(capability: str | None) -> Capability | None:
    """ "9.0" → (9, 0)."""
    if capability is None:
        return None
    major, _, minor = capability.partition(".")
    return int(major), int(minor or 0)


def _method(variant: Variant) -> Method:
    """Of a word that is not known, what most models are computed in."""
    word = _word(variant)
    return next((method for method in METHODS if word in method.words), BFLOAT16)


def _word(variant: Variant) -> str:
    return variant.precision.lower()


def _overflow(variant: Variant) -> str:
    """vLLM would fall back to float16 with a warning (config/model.py): its attention runs, the numbers need not."""
    if _word(variant) not in BFLOAT16.words:
        return f", in which most models are computed (`{variant.precision}` says no other)"
    return "; in float16, its fallback, values of a bfloat16 model can overflow"


def _other_variant() -> str:
    return f"{_newer(AMPERE)}, or a variant in int4 (AWQ, GPTQ) or fp16"


def _newer(capability: Capability) -> str:
    return f"a GPU of compute capability {_dotted(capability)}, {CARDS[capability]}, or newer"


def _dotted(capability: Capability) -> str:
    return f"{capability[0]}.{capability[1]}"
