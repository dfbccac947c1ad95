"""Words that a row may hand to vLLM: options and variables that published recipes use for performance and parsers.

Whatever is not named is refused when the row is read: options that name code, addresses, paths or other models are
many, and new ones come with every release. The engine's adapter asks the same of a lock. Source of the names:
vllm-project/recipes (2026-08-21), each an option or a variable of vLLM 0.32.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise

FLAGS = frozenset(
    [
        *("--enable-auto-tool-choice", "--tool-call-parser", "--reasoning-parser", "--reasoning-config"),
        *("--enable-expert-parallel", "--tokenizer-mode", "--chat-template-content-format", "--language-model-only"),
        *("--mm-encoder-tp-mode", "--attention-backend", "--attention_config", "--attention-config"),
        *("--linear-backend", "--moe-backend", "--block-size", "--kv-cache-dtype", "--quantization"),
        *("--speculative-config", "--kernel-config", "--enable-prefix-caching", "--no-enable-chunked-prefill"),
        *("--compilation-config", "--additional-config", "--enable-flashinfer-autotune"),
        *("--no-enable-flashinfer-autotune", "--disable-custom-all-reduce"),
    ]
)
COMPILATION = "--compilation-config"
COMPILATION_KEYS = frozenset(["mode", "cudagraph_mode", "pass_config", "custom_ops"])
"""Others name Python functions, which it imports."""
VARIABLES = frozenset(
    [
        *("VLLM_USE_DEEP_GEMM", "VLLM_MOE_USE_DEEP_GEMM", "VLLM_DEEP_GEMM_WARMUP", "VLLM_USE_V2_MODEL_RUNNER"),
        *("VLLM_USE_FLASHINFER_MOE_FP4", "VLLM_USE_FLASHINFER_MOE_FP8", "VLLM_BLOCKSCALE_FP8_GEMM_FLASHINFER"),
        *("VLLM_ALLREDUCE_USE_FLASHINFER", "VLLM_FLASHINFER_ALLREDUCE_BACKEND", "VLLM_FLOAT32_MATMUL_PRECISION"),
        *("VLLM_ENABLE_K3_LATENT_MOE_TAIL_FUSION", "SAFETENSORS_FAST_GPU", "PYTORCH_CUDA_ALLOC_CONF"),
        *("NCCL_CUMEM_ENABLE", "NCCL_MNNVL_ENABLE", "NCCL_NVLS_ENABLE", "VLLM_USE_NCCL_SYMM_MEM"),
        *("VLLM_ENGINE_READY_TIMEOUT_S", "PYTHONNOUSERSITE"),
    ]
)
VALUE = re.compile(r"[\w.:,-]{1,100}", re.ASCII)
"""Of a variable: no path fits."""


def strange_flags(args: Iterable[str]) -> Iterator[str]:
    """Those that are not a recipe's, without their values."""
    for word, following in pairwise((*args, "")):
        if not word.startswith("-"):
            continue
        name, _, value = word.partition("=")
        # A key below a JSON flag is written with a dot: --kernel-config.enable…
        flag, _, key = name.partition(".")
        if flag not in FLAGS or (flag == COMPILATION and not _is_tame(key, value or following)):
            yield name


def strange_variables(env: Mapping[str, str]) -> Iterator[str]:
    """Those that are not a recipe's, or whose value is no plain word."""
    return (name for name, value in env.items() if name not in VARIABLES or not VALUE.fullmatch(value))


def _is_tame(key: str, value: str) -> bool:
    if key:
        return key.partition(".")[0] in COMPILATION_KEYS
    try:
        given = json.loads(value)
    except (ValueError, RecursionError):
        return False
    return isinstance(given, dict) and given.keys() <= COMPILATION_KEYS
