"""What a published recipe may tell vLLM about its model: flags and variables, for every GPU and for one generation.

A lock can be edited: code, addresses and sizes are not among it. Source of the names: vllm-project/recipes
(2026-08-21), each an option or a variable of vLLM 0.32.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import pairwise

from deploy.lockfile import Facts

AUTO_TOOLS, EXPERTS = "--enable-auto-tool-choice", "--enable-expert-parallel"
FLAGS = frozenset(
    [
        *(AUTO_TOOLS, "--tool-call-parser", "--reasoning-parser", "--reasoning-config", EXPERTS),
        *("--tokenizer-mode", "--chat-template-content-format", "--language-model-only", "--mm-encoder-tp-mode"),
        *("--attention-backend", "--attention_config", "--attention-config", "--linear-backend", "--moe-backend"),
        *("--block-size", "--kv-cache-dtype", "--quantization", "--speculative-config", "--kernel-config"),
        *("--enable-prefix-caching", "--no-enable-chunked-prefill", "--compilation-config", "--additional-config"),
        *("--enable-flashinfer-autotune", "--no-enable-flashinfer-autotune", "--disable-custom-all-reduce"),
    ]
)
COMPILATION = "--compilation-config"
COMPILATION_KEYS = frozenset(["mode", "cudagraph_mode", "pass_config", "custom_ops"])
"""Others name Python functions, which it imports (config/compilation.py: backend, inductor_passes)."""
VARIABLES = frozenset(
    [
        *("VLLM_USE_DEEP_GEMM", "VLLM_MOE_USE_DEEP_GEMM", "VLLM_DEEP_GEMM_WARMUP", "VLLM_USE_V2_MODEL_RUNNER"),
        *("VLLM_USE_FLASHINFER_MOE_FP4", "VLLM_USE_FLASHINFER_MOE_FP8", "VLLM_BLOCKSCALE_FP8_GEMM_FLASHINFER"),
        *("VLLM_ALLREDUCE_USE_FLASHINFER", "VLLM_FLASHINFER_ALLREDUCE_BACKEND", "VLLM_FLOAT32_MATMUL_PRECISION"),
        *("VLLM_ENABLE_K3_LATENT_MOE_TAIL_FUSION", "SAFETENSORS_FAST_GPU", "PYTORCH_CUDA_ALLOC_CONF"),
        *("NCCL_CUMEM_ENABLE", "NCCL_MNNVL_ENABLE", "NCCL_NVLS_ENABLE", "VLLM_USE_NCCL_SYMM_MEM"),
        # Ours are put over these.
        *("VLLM_ENGINE_READY_TIMEOUT_S", "PYTHONNOUSERSITE"),
    ]
)
VALUE = re.compile(r"[\w.:,-]{1,100}", re.ASCII)
"""Of a variable."""


def unasked(facts: Facts) -> str | None:
    """A flag or a variable that no recipe has any business with."""
    found = [*_unasked_flags(facts.vllm_args)]
    for override in facts.overrides:
        found += _unasked_flags(override.args)
        found += (name for name, value in override.env.items() if name not in VARIABLES or not VALUE.fullmatch(value))
    return next(iter(found), None)


def flags(facts: Facts, generation: str | None) -> tuple[str, ...]:
    """The model's own, then its generation's, of which vLLM takes the last; without those of the plan.

    A tool parser does nothing by itself.
    """
    given = list(facts.vllm_args)
    for override in facts.overrides:
        given += override.args if override.generation == generation else ()
    kept = tuple(word for word in given if word != EXPERTS)
    return (*kept, AUTO_TOOLS) if "--tool-call-parser" in kept and AUTO_TOOLS not in kept else kept


def variables(facts: Facts, generation: str | None) -> dict[str, str]:
    """Of its generation alone."""
    found: dict[str, str] = {}
    for override in facts.overrides:
        found |= override.env if override.generation == generation else {}
    return found


def _unasked_flags(words: tuple[str, ...]) -> Iterator[str]:
    for word, following in pairwise((*words, "")):
        if not word.startswith("-"):
            continue
        name, _, value = word.partition("=")
        # A key below a JSON flag is written with a dot: --kernel-config.enable…
        flag, _, key = name.partition(".")
        if flag not in FLAGS or (flag == COMPILATION and not _is_tame(key, value or following)):
            yield name


def _is_tame(key: str, value: str) -> bool:
    if key:
        return key.partition(".")[0] in COMPILATION_KEYS
    try:
        given = json.loads(value)
    except ValueError:
        return False
    return isinstance(given, dict) and given.keys() <= COMPILATION_KEYS
