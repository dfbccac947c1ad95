"""Fills in ``Hardware``: from this box, or from a recorded file. What cannot be read stays None."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil

from deploy import cgroup, nvidia, paths
from deploy.errors import ConfigError
from deploy.hardware import Cpu, Hardware, Memory

X86 = {"sse4_2", "avx", "avx2", "fma", "f16c", "bmi2", "avx_vnni"}
AVX512 = {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni", "avx512_bf16", "avx512_fp16"}
AMX = {"amx_tile", "amx_int8", "amx_bf16", "amx_fp16"}
ARM = {"asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "svei8mm", "svebf16", "sme"}
ISA = X86 | AVX512 | AMX | ARM
"""Of the kernel's CPU flags those that an engine's kernels ask for."""

RECORD = "ownweights hardware --json > box.json"


def detect(weights_dir: Path, *, root: Path = Path("/"), nvml: Any = None) -> Hardware:
    """This box, as this process may use it. ``weights_dir`` need not exist yet.

    ``root`` is where ``proc``, ``sys`` and ``dev`` are read, ``nvml`` a stand-in for pynvml.
    """
    limits = cgroup.limits(root)
    gpus = nvidia.look(root, nvml)
    memory = psutil.virtual_memory()
    return Hardware(
        platform=f"{sys.platform}-{platform.machine()}",
        cpu=_cpu(root, limits.cpu_cores),
        memory=Memory(
            total_bytes=memory.total,
            available_bytes=memory.available,
            limit_bytes=limits.memory_bytes,
            limit_used_bytes=limits.memory_used_bytes,
        ),
        gpus=gpus.gpus,
        gpu_error=gpus.error,
        driver=gpus.driver,
        cuda_major=gpus.cuda_major,
        disk_free_bytes=_disk_free(weights_dir),
    )


def load(path: Path) -> Hardware:
    """A box recorded by `ownweights hardware --json`. Raises ConfigError naming the field and the rule."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Hardware)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=str(path), hint=RECORD) from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigError(f"not a recorded hardware: {error}", where=str(path), hint=RECORD) from error
    for field in _negative(msgspec.to_builtins(found)):
        raise ConfigError(f"not a recorded hardware: `{field}` must not be negative", where=str(path), hint=RECORD)
    return found


def _negative(value: Any, name: str = "$") -> Iterator[str]:
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from _negative(entry, f"{name}.{key}")
    elif isinstance(value, tuple):
        for index, entry in enumerate(value):
            yield from _negative(entry, f"{name}[{index}]")
    elif isinstance(value, int | float) and value < 0:
        yield name


def _cpu(root: Path, quota_cores: float | None) -> Cpu:
    info = _cpuinfo(root / "proc/cpuinfo")
    flags = (info.get("flags") or info.get("Features") or "").split()
    return Cpu(
        model=info.get("model name"),
        architecture=platform.machine(),
        physical_cores=psutil.cpu_count(logical=False),
        logical_cores=psutil.cpu_count(),
        affinity_cores=len(os.sched_getaffinity(0)) if sys.platform == "linux" else None,
        quota_cores=quota_cores,
        isa=tuple(sorted(ISA.intersection(flags))),
        numa_nodes=_numa_nodes(root / "sys/devices/system/node/has_cpu"),
    )


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
        spans = [span.split("-") for span in path.read_text().strip().split(",")]
        return sum(int(span[-1]) - int(span[0]) + 1 for span in spans)
    except (OSError, ValueError):
        return None


def _disk_free(folder: Path) -> int | None:
    """Where the folder will be made: of its nearest parent that exists."""
    try:
        return shutil.disk_usage(paths.nearest(folder)).free
    except OSError:
        return None
