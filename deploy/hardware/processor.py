"""The CPU as this process may use it: cores by affinity, not by what the box has.

Source: the kernel's ABI of /sys/devices/system/cpu, proc_cpuinfo(5); names of ARM cores from util-linux' lscpu-arm.c.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable
from pathlib import Path

import psutil

from deploy.hardware import Cpu, sysfs

X86 = {"sse4_2", "avx", "avx2", "fma", "f16c", "bmi2", "avx_vnni"}
AVX512 = {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni", "avx512_bf16", "avx512_fp16"}
AMX = {"amx_tile", "amx_int8", "amx_bf16", "amx_fp16"}
ARM = {"asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "svei8mm", "svebf16", "sme"}
"""``asimd`` is NEON."""
ISA = X86 | AVX512 | AMX | ARM
"""Of the kernel's CPU flags those that an engine's kernels ask for."""

ARM_CORES = {
    "0xd0c": "Neoverse-N1",
    "0xd40": "Neoverse-V1",
    "0xd49": "Neoverse-N2",
    "0xd4f": "Neoverse-V2",
    "0xd84": "Neoverse-V3",
    "0xd8e": "Neoverse-N3",
}
"""Of implementer 0x41, ARM itself. Graviton 2, 3 and 4 are N1, V1 and V2, Grace is V2."""


def cpu(root: Path, quota_cores: float | None) -> Cpu:
    """``root`` holds ``proc`` and ``sys``; the affinity is this process' own."""
    info = _cpuinfo(root / "proc/cpuinfo")
    flags = (info.get("flags") or info.get("Features") or "").split()
    allowed = os.sched_getaffinity(0) if sys.platform == "linux" else None
    cores, sockets = topology(root, allowed or ())
    return Cpu(
        model=info.get("model name") or _arm(info),
        architecture=platform.machine(),
        sockets=sockets,
        physical_cores=cores or psutil.cpu_count(logical=False),
        # A container's file system may show fewer than it lets a process run on (lxcfs and a quota).
        logical_cores=max(psutil.cpu_count() or 0, len(allowed or ())) or None,
        affinity_cores=None if allowed is None else len(allowed),
        quota_cores=quota_cores,
        isa=tuple(sorted(ISA.intersection(flags))),
        numa_nodes=_numa_nodes(root / "sys/devices/system/node/has_cpu"),
    )


def topology(root: Path, allowed: Iterable[int]) -> tuple[int | None, int | None]:
    """Physical cores and sockets among the ``allowed`` logical ones: two threads of one core are one core."""
    folders = [root / f"sys/devices/system/cpu/cpu{number}/topology" for number in allowed]
    # The second name is the first one's in kernels before 5.3.
    siblings = {sysfs.text(each / "core_cpus_list") or sysfs.text(each / "thread_siblings_list") for each in folders}
    sockets = {sysfs.text(each / "physical_package_id") for each in folders}
    unknown = {"", "-1"}
    return (
        len(siblings) if siblings and not siblings & unknown else None,
        len(sockets) if sockets and not sockets & unknown else None,
    )


def _arm(info: dict[str, str]) -> str | None:
    """ARM's kernels print numbers for a name."""
    maker, part = info.get("CPU implementer"), info.get("CPU part")
    if maker is None or part is None:
        return None
    known = ARM_CORES.get(part) if maker == "0x41" else None
    return f"ARM {known}" if known else f"ARM, implementer {maker} part {part}"


def _cpuinfo(path: Path) -> dict[str, str]:
    """Of the first processor: the kernel offers only flags that all of them have."""
    info: dict[str, str] = {}
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                name, colon, value = line.partition(":")
                if not colon:
                    break
                info[name.strip()] = value.strip()
    except OSError:
        pass
    return info


def _numa_nodes(path: Path) -> int | None:
    """Nodes with a CPU; nodes of memory alone (a GPU's, CXL) are not counted. The file reads like ``0-1,4``."""
    try:
        spans = [span.split("-") for span in sysfs.text(path).split(",")]
        return sum(int(span[-1]) - int(span[0]) + 1 for span in spans)
    except ValueError:
        return None
