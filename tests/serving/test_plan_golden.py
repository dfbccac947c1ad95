"""Twenty-odd models on boxes, with the real engines: what is planned, and the arithmetic or the recipe that says so.

Sizes are the catalogue's. GB are powers of ten; a GPU gives 0.92 of what its driver leaves, RAM 0.9 of what is free.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from deploy import catalog
from deploy.config import ModelWish
from deploy.hardware import GpuReading, Hardware, Link, detection
from deploy.measured import NOTHING
from deploy.planning import fitting
from deploy.planning.choice import telling
from serving.engines import ENGINES

BOXES = Path(__file__).parents[1] / "fixtures" / "hardware"


class Pair(NamedTuple):
    """``box``: a recorded one, or so many of its first GPU, idle and joined by NVLink: ``h200-30gb-used*8``."""

    model: str
    box: str
    verdict: str
    variant: str
    tensor: int
    context: int
    why: str
    wanted: int | None = None
    data: int = 1
    pipeline: int = 1


PAIRS = (
    Pair(
        *("qwen2.5-coder-0.5b", "container-1.5cpu-4gb", "fits", "gguf/Q4_K_M", 1, 8192),
        why="0.49 GB + 8 * 8192 * 12,288 B (0.81 GB) + buffers < 0.9 * (4.29 - 0.31) GB of the cgroup's limit",
    ),
    Pair(
        *("qwen2.5-coder-1.5b", "vm-2core-24gb", "fits", "gguf/Q4_K_M", 1, 8192),
        why="1.12 GB + 8 * 8192 * 28,672 B (1.88 GB) + buffers < 0.9 * 22 GB free",
    ),
    Pair(
        *("qwen3-0.6b", "laptop-8gb", "limits", "gguf/Q8_0", 1, 8192),
        why="0.64 GB + 114,688 B a token: 8 slots of 8192 are 7.5 GB, more than 4.9; 4 of them 3.76 GB",
    ),
    Pair(
        *("qwen3-8b", "arm-server", "fits", "gguf/Q4_K_M", 1, 8192),
        why="5.03 GB + 8 * 8192 * 147,456 B (9.66 GB) + buffers < 0.9 * 32 GB free",
    ),
    Pair(
        *("qwen3-30b-a3b", "server-64core-amx", "fits", "gguf/Q4_K_M", 1, 8192),
        why="18.6 GB + 8 * 8192 * 98,304 B (6.4 GB) < 468 GB",
    ),
    Pair(
        *("qwen3-8b", "rtx3090", "fits", "safetensors/bf16", 1, 32768),
        why="recipe minimum 20 GB for bf16; 16.7 GB + 32768 * 147,456 B (4.8 GB) < 23.4",
    ),
    Pair(
        *("qwen3-8b", "rtx3090", "fits", "safetensors/fp8", 1, 40960),
        why="16.7 GB + 40960 * 147,456 B (6.0 GB) leave nothing for the rest; the 8.6 GB of fp8 do",
        wanted=40960,
    ),
    Pair(
        *("qwen3-32b", "rtx4090", "limits", "safetensors/int4", 1, 8192),
        why="recipe minimum 20 GB for AWQ; 19.2 GB + 8192 * 262,144 B (2.1 GB) of 23.2: 32768 would be 8.6",
    ),
    Pair(
        *("qwen3-32b", "rtx4090-x2-no-p2p", "fits", "safetensors/fp8", 1, 32768),
        why="no peer access: two stages with half of 33.6 GB and of 8.6 GB each; bf16 would be 33 GB on each",
        pipeline=2,
    ),
    Pair(
        *("qwen3-32b", "h100", "fits", "safetensors/bf16", 1, 40960),
        why="recipe minimum 77 GB for bf16 at 1.2 times the weights; 65.3 GB + 40960 * 262,144 B (10.7 GB) < 78.2",
    ),
    Pair(
        *("qwen3-8b", "mig-slice", "fits", "safetensors/bf16", 1, 40960),
        why="16.7 GB + 40960 * 147,456 B (6.0 GB) < 0.92 * 42.4 GB of the slice",
    ),
    Pair(
        *("qwen3-8b", "h200-30gb-used", "fits", "safetensors/bf16", 1, 40960),
        why="what another process holds lowers the share, and 118 GB are still plenty",
    ),
    Pair(
        *("qwen3-30b-a3b", "a100-40-x4", "fits", "safetensors/bf16", 4, 40960),
        why="62.2 GB do not fit on one of 40; on two 31.1 GB leave less for the cache than on four; 4 KV heads allow 4",
    ),
    Pair(
        *("qwen3.6-27b", "l40s-x4*1", "fits", "safetensors/fp8", 1, 131072),
        why="recipe minimum 33 GB for FP8 on one of 48; 65,536 B a token: 131072 tokens are 8.6 GB",
    ),
    Pair(
        *("qwen3.5-122b-a10b", "h100", "fits", "safetensors/int4", 1, 131072),
        why="recipe minimum 74 GB for int4 on one of 80; 12 of 48 layers keep 24,576 B a token: 131072 are 3.2 GB",
    ),
    Pair(
        *("minimax-m2.5", "h100-x8*4", "fits", "safetensors/fp8", 4, 196608),
        why="recipe: TP 4, minimum 276 GB at 1.2 times the weights; 230 GB / 4 = 60 GB of 78",
    ),
    Pair(
        *("minimax-m2.5", "h100-x8", "fits", "safetensors/fp8", 4, 196608),
        why="1536 / 8 = 192 is no multiple of the FP8 blocks of 128: TP 4, and the other four are not needed",
    ),
    Pair(
        *("deepseek-r1", "h200-30gb-used*8", "fits", "safetensors/fp8", 8, 163840),
        why="recipe minimum 805 GB; 705 GB / 8 = 88 GB, MLA's 70,272 B a token whole on each: 11.5 GB for 163840",
    ),
    Pair(
        *("deepseek-v3.2", "h200-30gb-used*8", "fits", "safetensors/fp8", 1, 163840),
        why="recipe: data parallel 8 with whole experts, as TP 8 pads 16 heads to 64",
        data=8,
    ),
    Pair(
        *("kimi-k2.5", "h200-30gb-used*8", "fits", "safetensors/int4", 8, 262144),
        why="recipe minimum 714 GB; 595 GB / 8 = 74 GB, 262144 * 70,272 B = 18 GB on each; int4 is the maker's own",
    ),
    Pair(
        *("qwen3-235b-a22b", "h100-x8", "limits", "safetensors/bf16", 8, 131072),
        why="recipe minimum 564 GB of 640; 479 GB / 8 = 60 GB, 6.3 GB for 131072; its heads are unread",
    ),
)

REFUSED = (
    ("qwen3-8b", "laptop-8gb", "of RAM can be taken", "5.0 GB + 2048 * 147,456 B and buffers > 0.9 * 5.4 GB"),
    ("qwen3-8b", "old-driver", "this build needs 13", "driver 550 runs CUDA 12 at most"),
    ("qwen3-8b", "nvml-failing", "cannot be read", "a GPU that cannot be read is not silently ignored"),
    ("deepseek-r1", "h100-x8", "needs", "705 GB are more than 8 * 78 GB"),
    ("kimi-k3", "b200-x8", "needs", "recipe minimum 1680 GB, and 8 B200 have 1536"),
    ("qwen3.8-2.4t-a95b", "b200-x8", "needs", "1.32 TB of nvfp4 and buffers are more than 8 * 176 GB"),
)


def box(name: str) -> Hardware:
    recorded, _, count = name.partition("*")
    found = detection.load(BOXES / f"{recorded}.json")
    if not count:
        return found
    first, number = found.gpus[0], int(count)
    gpus = tuple(msgspec.structs.replace(first, index=index) for index in range(number))
    free = tuple(GpuReading(index=index, memory_free_bytes=first.memory_total_bytes) for index in range(number))
    links = tuple(
        Link(first=one, second=other, path="nvlink", peer=True) for one in range(number) for other in range(one)
    )
    return msgspec.structs.replace(found, gpus=gpus, links=links, now=msgspec.structs.replace(found.now, gpus=free))


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair.model}-{pair.box}-{pair.wanted or 'any'}")
def test_the_golden_table(pair: Pair) -> None:
    wish = ModelWish(name=pair.model, context=pair.wanted)
    way = fitting.choose(catalog.find(pair.model), wish, box(pair.box), ENGINES, NOTHING).way
    assert way is not None
    split = way.settings.split
    assert (
        "limits" if way.limits else "fits",
        way.variant.key,
        split.tensor,
        split.data,
        split.pipeline,
        way.settings.context_tokens,
    ) == (pair.verdict, pair.variant, pair.tensor, pair.data, pair.pipeline, pair.context), pair.why


@pytest.mark.parametrize(("model", "name", "reason", "why"), REFUSED, ids=lambda value: value if "-" in value else "")
def test_what_no_box_of_these_can_run(model: str, name: str, reason: str, why: str) -> None:
    choice = fitting.choose(catalog.find(model), ModelWish(name=model), box(name), ENGINES, NOTHING)
    assert choice.way is None, why
    found = telling(choice.rejected)
    assert found is not None
    assert reason in found.reason
