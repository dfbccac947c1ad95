from __future__ import annotations

import pytest

from deploy.engine import Figures
from serving.engines.vllm_figures import read

GIB = 1 << 30

# A start of 0.32 on a CPU, as it was printed (paths cut).
CPU = """\
(EngineCore pid=11061) INFO 11-24 10:12:05 [weight_utils.py:1108] Filesystem type for checkpoints: EXT4. \
Checkpoint size: 1.17 GiB. Available RAM: 21.37 GiB.
(EngineCore pid=11061) INFO 11-24 10:12:07 [default_loader.py:501] Loading weights took 1.96 seconds
(EngineCore pid=11061) INFO 11-24 10:12:09 [cpu_worker.py:260] Explicitly set (0.05/13.21) GiB for KV cache on node 0.
(EngineCore pid=11061) INFO 11-24 10:12:09 [kv_cache_utils.py:2327] CPU KV cache size: 4,224 tokens, Maximum \
concurrency for 2,048 tokens per request: 2.06x
"""

# By the format strings of 0.32.
GPU = """\
(Worker_TP0 pid=1) INFO 06-23 14:52:48 [gpu_model_runner.py:5149] Model loading took 15.27 GiB memory and \
8.123456 seconds
(Worker_TP0 pid=1) INFO 06-23 14:53:26 [gpu_worker.py:759] Available KV cache memory: 88.34 GiB
(EngineCore pid=2) INFO 06-23 14:53:27 [kv_cache_utils.py:2327] GPU KV cache size: 643,232 tokens, Maximum \
concurrency for 40,960 tokens per request: 15.70x
"""

RANKS = """\
(Worker_DP0_EP0 pid=3) INFO [gpu_model_runner.py:5149] Model loading took 96.10 GiB memory and 210.000000 seconds
(Worker_DP1_EP1 pid=4) INFO [gpu_model_runner.py:5149] Model loading took 96.25 GiB memory and 211.000000 seconds
(Worker_DP0_EP0 pid=3) INFO [gpu_worker.py:759] Available KV cache memory: 20.50 GiB
(Worker_DP1_EP1 pid=4) INFO [gpu_worker.py:759] Available KV cache memory: 20.25 GiB
(EngineCore_DP0 pid=5) INFO [kv_cache_utils.py:2327] GPU KV cache size: 457,000 tokens, Maximum concurrency for \
163,840 tokens per request: 2.79x
(EngineCore_DP1 pid=6) INFO [kv_cache_utils.py:2327] GPU KV cache size: 452,352 tokens, Maximum concurrency for \
163,840 tokens per request: 2.76x
"""


def test_the_cpu_build_tells_tokens_and_context() -> None:
    assert read(CPU) == Figures(kv_tokens=4224, context_tokens=2048)


def test_the_gpu_build_tells_bytes_too() -> None:
    expected = Figures(
        kv_tokens=643_232,
        kv_bytes=round(88.34 * GIB),
        weights_bytes=round(15.27 * GIB),
        context_tokens=40_960,
    )
    assert read(GPU) == expected


def test_of_several_ranks_the_fullest_device_counts() -> None:
    found = read(RANKS)
    assert found.kv_tokens == 452_352
    assert found.kv_bytes == round(20.25 * GIB)
    assert found.weights_bytes == round(96.25 * GIB)


def test_a_context_that_was_made_to_fit_is_the_one_that_is_served() -> None:
    fitted = """\
INFO [kv_cache_utils.py:2477] Auto-fit max_model_len: reduced from 2048 to 384 to fit in available KV cache memory \
(0.05 GiB)
INFO [kv_cache_utils.py:2327] GPU KV cache size: 512 tokens, Maximum concurrency for 384 tokens per request: 1.33x
"""
    assert read(fitted).context_tokens == 384


def test_a_log_that_says_nothing_gives_nothing() -> None:
    assert read("INFO:     Application startup complete.\n") == Figures()


HOSTILE = (
    "GPU KV cache size: ,, tokens",
    f"GPU KV cache size: {'9' * 5000} tokens",
    "Available KV cache memory: 1.2.3 GiB",
    "Available KV cache memory: -5.0 GiB",
    "Available KV cache memory: . GiB",
    f"Model loading took {'9' * 400} GiB",
    f"Maximum concurrency for {'9' * 5000} tokens per request",
)


@pytest.mark.parametrize("line", HOSTILE, ids=range(len(HOSTILE)))
def test_what_is_no_size_of_a_box_is_not_read(line: str) -> None:
    assert read(line) == Figures()
    assert read(f"{line}\n{GPU}") == read(GPU)
