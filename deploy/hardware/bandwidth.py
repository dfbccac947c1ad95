"""How fast this box reads its RAM: measured, with so many threads at once.

It is what plain reading in order reaches. An engine's decoding reads its weights in the same way and has to compute
on them as well: it comes near with 16-bit weights, and with few threads stays far below with packed ones.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil

from deploy.hardware import cgroup, sysfs

BUFFER_BYTES, MOST_BYTES = 256 << 20, 4 << 30
"""Of all threads together: four times what the CPUs' last caches hold, within these bounds."""
FILL_S = 10.0
"""The most that filling them may take: 0.1 s on a quiet box."""
SIZES = {"K": 1 << 10, "M": 1 << 20}
"""How the kernel writes the size of a cache."""


def measure(threads: int, *, seconds: float = 0.1, root: Path = Path("/")) -> float | None:
    """Bytes per second, after about as long again for filling the buffers.

    None where too little memory is free for buffers that no cache can hold half of (what is read then does not come
    from RAM), and where the box is too busy to begin. ``root`` holds ``sys`` and ``proc``.
    """
    cached = _cached_bytes(root)
    size = min(max(BUFFER_BYTES, 4 * cached), MOST_BYTES)
    if _free_bytes(root) < 2 * size or cached * 2 > size:
        return None
    barrier = threading.Barrier(threads, timeout=FILL_S)

    def read(_: int) -> float:
        # Filled by the thread that reads it: on a box with several NUMA nodes memory lies where it was first written.
        buffer = np.ones(size // threads // 8, np.int64)
        barrier.wait()
        return _rate(buffer, seconds)

    try:
        with ThreadPoolExecutor(threads) as pool:
            return sum(pool.map(read, range(threads)))
    except (MemoryError, threading.BrokenBarrierError):
        return None


def _rate(buffer: np.ndarray[tuple[int], np.dtype[np.int64]], seconds: float) -> float:
    """A bitwise or: of numpy's reductions it streams best, and it gives up the interpreter lock."""
    start = time.perf_counter()
    passes = 0
    while not passes or time.perf_counter() - start < seconds:
        np.bitwise_or.reduce(buffer)
        passes += 1
    return passes * buffer.nbytes / (time.perf_counter() - start)


def _free_bytes(root: Path) -> int:
    available = int(psutil.virtual_memory().available)
    limits = cgroup.limits(root)
    if limits.memory_bytes is None:
        return available
    return min(available, limits.memory_bytes - (limits.memory_used_bytes or 0))


def _cached_bytes(root: Path) -> int:
    """Of all caches of the last level there is; each counts once, however many cores share it."""
    found: dict[tuple[int, str], int] = {}
    for index in root.glob("sys/devices/system/cpu/cpu[0-9]*/cache/index[0-9]*"):
        level, shared, size = (sysfs.text(index / name) for name in ("level", "shared_cpu_list", "size"))
        if level.isdigit() and size[:-1].isdigit() and size[-1] in SIZES:
            found[int(level), shared] = int(size[:-1]) * SIZES[size[-1]]
    last = max((level for level, _ in found), default=0)
    return sum(size for (level, _), size in found.items() if level == last)
