"""Decode speed of one stream, predicted: every token reads all active weights once, and that takes the time. Pure.

Not counted is what makes it slower than said: a long context, whose cache is read as well, and busy neighbours.
"""

from __future__ import annotations

from deploy.engine import Device
from deploy.hardware import Hardware
from deploy.hardware import gpus as kinds
from deploy.lockfile import Variant
from deploy.memory import weights_bytes
from deploy.plan import Speed

CORE_BYTES_PER_S = 12e9
"""Unpacked and multiplied by one thread. A Q4_K_M file of 0.5B gave 15.6 GB/s with one thread of llama.cpp and
12.9 GB/s with each of two, on a quiet box of two cores (2026-11)."""
REACHED = 0.8
"""Of the bandwidth that plain reading reaches: F16 weights, which need no unpacking, gave 0.9 with two threads."""
ASSUMED_CORE_BYTES_PER_S = 8e9
"""Where the box's bandwidth is not known: the lower end of what Q4 files of 0.5B and 1.5B gave on the CPU engine on
2 cores (8 to 10 GB/s per core, 2026-11)."""
ASSUMED_BYTES_PER_S = 40e9
"""Two memory channels, which most boxes without a server board have."""
GPU_REACHED = 0.5
"""Of the data sheet's bandwidth. Rough: several GPUs wait for each other at every layer. No GPU run is behind it."""

GPU_STEP_S = 0.002
"""Of every token beside reading: scheduling and launching a step. A model of next to nothing took 2.2 ms per token in
vLLM (two CPU cores, 2026-11). It is what keeps small models from the thousands that bandwidth alone would promise."""


def predicted(variant: Variant, threads: int, hardware: Hardware, device: Device, gpus: int) -> Speed | None:
    """With ``threads`` of the CPU or on ``gpus`` GPUs; None where nothing is known of the GPU or of the weights."""
    read = _bytes_per_token(variant)
    if not read:
        return None
    found = _of_cpu(threads, hardware) if device == "cpu" else _of_gpus(gpus, hardware)
    if found is None:
        return None
    bytes_per_s, source = found
    step_s = 0.0 if device == "cpu" else GPU_STEP_S
    return Speed(
        tokens_per_s=1 / (read / bytes_per_s + step_s),
        provenance="predicted",
        source=f"{source}; {read / 1e9:.3g} GB of weights per token",
    )


def _bytes_per_token(variant: Variant) -> float:
    """Of experts those that answer. The table of embeddings is looked up, not read; but which part it is, or whether
    it is the output layer too, no fact says: it is counted."""
    facts = variant.facts
    whole = weights_bytes(variant)
    if facts.parameters and facts.active_parameters:
        return whole * min(1.0, facts.active_parameters / facts.parameters)
    return whole


def _of_cpu(threads: int, hardware: Hardware) -> tuple[float, str]:
    bandwidth = hardware.memory.bandwidth_bytes_per_s
    if bandwidth is None:
        assumed = min(threads * ASSUMED_CORE_BYTES_PER_S, ASSUMED_BYTES_PER_S)
        return assumed, f"assumed, not measured: {assumed / 1e9:.3g} GB/s with {threads} threads"
    core, ram = threads * CORE_BYTES_PER_S, bandwidth * REACHED
    if core < ram:
        return core, f"{threads} threads at {CORE_BYTES_PER_S / 1e9:g} GB/s, below the memory's {bandwidth / 1e9:.3g}"
    return ram, f"{REACHED:.0%} of the measured {bandwidth / 1e9:.3g} GB/s of memory"


def _of_gpus(count: int, hardware: Hardware) -> tuple[float, str] | None:
    """As many of the first kind there is: a plan takes equal ones."""
    names = [gpu.name for gpu in hardware.usable_gpus]
    row = kinds.find(names[0]) if names else None
    if row is None or row.bandwidth_bytes_per_s is None:
        return None
    reached = row.bandwidth_bytes_per_s * count * GPU_REACHED
    return reached, f"roughly {GPU_REACHED:.0%} of {count} * {row.bandwidth_bytes_per_s / 1e9:.4g} GB/s ({row.name})"
