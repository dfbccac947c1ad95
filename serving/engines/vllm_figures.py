"""What vLLM says of itself in the log of a start: tokens and bytes of its KV cache, bytes of its weights, context.

Source: 0.32 and 0.33, v1/core/kv_cache_utils.py (tokens), v1/worker/gpu_worker.py and gpu_model_runner.py (bytes, GPU
build only); seen on the CPU build. Every rank prints its own: the least cache and the most weights are the fullest
device's. Bytes are rounded to a hundredth of a GiB there, tokens are exact. A number that no box has is no line.
"""

from __future__ import annotations

import re

from deploy.engine import Figures

GIB = 1 << 30
TOKENS = re.compile(r"KV cache size: ([0-9][0-9,]{0,20}) tokens")
CACHE = re.compile(r"Available KV cache memory: ([0-9]{1,8}\.?[0-9]{0,4}) GiB")
WEIGHTS = re.compile(r"Model loading took ([0-9]{1,8}\.?[0-9]{0,4}) GiB")
CONTEXT = re.compile(r"Maximum concurrency for ([0-9][0-9,]{0,20}) tokens per request")


def read(log: str) -> Figures:
    """Absent lines are None."""
    return Figures(
        kv_tokens=min(map(_whole, TOKENS.findall(log)), default=None),
        kv_bytes=min(map(_bytes, CACHE.findall(log)), default=None),
        weights_bytes=max(map(_bytes, WEIGHTS.findall(log)), default=None),
        context_tokens=min(map(_whole, CONTEXT.findall(log)), default=None),
    )


def _whole(text: str) -> int:
    return int(text.replace(",", ""))


def _bytes(gib: str) -> int:
    return round(float(gib) * GIB)
