"""How much memory a device can give: what is free now, less a margin, less what other models of the plan hold. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations

from deploy.hardware import Gpu, Hardware

CPU_SHARE = 0.9
"""Of free RAM. The rest is for the page cache of everything else and for our own processes."""
GPU_SHARE = 0.92
"""Of a GPU's own memory: vLLM's own default."""
STEPS = 1000
"""A share is told to the engine in thousandths."""
CONTEXT_BYTES = 750_000_000
"""Of a GPU. vLLM compares what is free with its share once CUDA's own context, about 0.6 GB, is there already."""

Taken = Mapping[int, int]
"""Bytes that other models of the plan hold, by the index of the GPU; RAM under ``RAM``."""
RAM = -1


def of_ram(hardware: Hardware, taken: Taken) -> int | None:
    """Bytes; None where free memory is not known."""
    free = hardware.memory_free_bytes
    return None if free is None else int(free * CPU_SHARE) - taken.get(RAM, 0)


def share(gpus: tuple[Gpu, ...], hardware: Hardware, taken: Taken) -> float:
    """Of its own memory, what every one of these GPUs can give: the engine refuses to start where less is free."""
    return min((_share(gpu, hardware, taken) for gpu in gpus), default=0.0)


def _share(gpu: Gpu, hardware: Hardware, taken: Taken) -> float:
    own, free = own_bytes(gpu, hardware), hardware.reading(gpu).memory_free_bytes
    held = taken.get(gpu.index, 0)
    if not own or (free is None and not held):
        return GPU_SHARE
    left = (own if free is None else free) - held - CONTEXT_BYTES
    return max(0.0, min(GPU_SHARE, math.floor(left / own * STEPS) / STEPS))


def of_gpus(gpus: tuple[Gpu, ...], share: float, hardware: Hardware) -> int:
    """Bytes of the smallest of them at that share."""
    return int(min(own_bytes(gpu, hardware) for gpu in gpus) * share)


def own_bytes(gpu: Gpu, hardware: Hardware) -> int:
    """Its memory without what the driver keeps for itself: engines count their share of that."""
    total, now = gpu.memory_total_bytes or 0, hardware.reading(gpu)
    if now.memory_free_bytes is None or now.memory_used_bytes is None:
        return total
    return min(total, now.memory_free_bytes + now.memory_used_bytes)


def held(need: int, own: int) -> int:
    """What an engine that needs so much keeps from others on a GPU: whole steps of a share, and CUDA's context."""
    return math.ceil(math.ceil(need / own * STEPS) * own / STEPS) + CONTEXT_BYTES if own else need


def needed_of_gpu(own: int, need: int) -> int:
    """Free bytes a GPU of that size, or a larger one where it is too small, must have so that ``need`` can be taken."""
    free = need + own / STEPS + CONTEXT_BYTES
    if need <= own * GPU_SHARE - own / STEPS and free <= own:
        return int(free) + 1
    step = 1 / STEPS
    return int(max(need / (GPU_SHARE - step), (need + CONTEXT_BYTES) / (1 - step))) + 1


def pick(gpus: tuple[Gpu, ...], count: int, hardware: Hardware, taken: Taken) -> tuple[Gpu, ...]:
    """Of equal GPUs those that can give most; of as good ones neighbours that NVLink joins, then the first."""
    shares = {gpu.index: _share(gpu, hardware, taken) for gpu in gpus}
    ranked = sorted(gpus, key=lambda gpu: -shares[gpu.index])
    least = shares[ranked[count - 1].index]
    sure = [gpu for gpu in ranked if shares[gpu.index] > least]
    tied = [gpu for gpu in gpus if shares[gpu.index] == least]
    open_ = count - len(sure)
    linked = {frozenset((link.first, link.second)) for link in hardware.links if link.path == "nvlink"}

    def joined(group: list[Gpu]) -> int:
        return sum(frozenset((one.index, other.index)) in linked for one, other in combinations([*sure, *group], 2))

    # Neighbours only: all ways to choose eight of sixteen are thirteen thousand.
    if not linked:
        chosen = {gpu.index for gpu in (*sure, *tied[:open_])}
        return tuple(gpu for gpu in gpus if gpu.index in chosen)
    windows = [tied[start : start + open_] for start in range(len(tied) - open_ + 1)]
    chosen = {gpu.index for gpu in (*sure, *max(windows, key=joined))}
    return tuple(gpu for gpu in gpus if gpu.index in chosen)


def groups(hardware: Hardware) -> tuple[tuple[Gpu, ...], ...]:
    """GPUs that are alike: only those can share a model evenly. In the order in which they are found."""
    alike: dict[tuple[str | None, str | None, int | None], list[Gpu]] = {}
    for gpu in hardware.usable_gpus:
        alike.setdefault((gpu.name, gpu.compute_capability, gpu.memory_total_bytes), []).append(gpu)
    return tuple(tuple(group) for group in alike.values())
