"""Fills in ``Hardware``: from this box, or from a recorded file. What cannot be read stays None."""

from __future__ import annotations

import platform
import re
import sys
from pathlib import Path
from typing import Any

import psutil

from deploy.decoding import Undecodable
from deploy.errors import ConfigError
from deploy.hardware import (
    Hardware,
    Memory,
    Readings,
    cgroup,
    filesystem,
    nvidia,
    pci,
    processor,
    record,
    stream,
    sysfs,
)

CHOSEN = re.compile(r"\[(\w+)\]")
"""Of a list of words in /sys the one that holds."""
MEMINFO = re.compile(r"^(\w+): +(\d+) kB$", re.MULTILINE)
RECORD = "ownweights hardware --record box.json"


def detect(weights_dir: Path, *, root: Path = Path("/"), nvml: Any = None) -> Hardware:
    """This box, as this process may use it. ``weights_dir`` need not exist yet.

    ``root`` is where ``proc``, ``sys`` and ``dev`` are read, ``nvml`` a stand-in for pynvml.
    """
    limits = cgroup.limits(root)
    devices = pci.gpus(root)
    seen = nvidia.look(root, devices, nvml)
    others = pci.named(devices, first=1 + max((gpu.index for gpu in seen.gpus), default=-1))
    memory = psutil.virtual_memory()
    swap_total, swap_used = _swap(root)
    disk, disk_free = filesystem.disk(weights_dir, root)
    return Hardware(
        platform=f"{sys.platform}-{platform.machine()}",
        cpu=processor.cpu(root, limits.cpu_cores),
        memory=Memory(
            total_bytes=memory.total,
            limit_bytes=limits.memory_bytes,
            swap_total_bytes=swap_total,
            huge_pages=_huge_pages(root),
        ),
        disk=disk,
        gpus=(*seen.gpus, *others),
        links=seen.links,
        gpu_error=seen.error,
        driver=seen.driver,
        cuda_major=seen.cuda_major,
        cuda_minor=seen.cuda_minor,
        now=Readings(
            memory_available_bytes=memory.available,
            limit_used_bytes=limits.memory_used_bytes,
            swap_used_bytes=swap_used,
            disk_free_bytes=disk_free,
            gpus=seen.readings,
        ),
    )


def load(path: Path) -> Hardware:
    """A box recorded by `ownweights hardware`. Raises ConfigError naming the field and the rule."""
    try:
        return record.decode(stream.read(path))
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=str(path), hint=RECORD) from error
    except Undecodable as error:
        hint = error.hint or f"{RECORD}  # on that box, with this version"
        raise ConfigError(f"not a recorded hardware: {error}", where=str(path), hint=hint) from error


def _swap(root: Path) -> tuple[int | None, int | None]:
    """Total and used bytes."""
    kilobytes = {name: int(count) for name, count in MEMINFO.findall(sysfs.text(root / "proc/meminfo"))}
    total, free = kilobytes.get("SwapTotal"), kilobytes.get("SwapFree")
    if total is None:
        return None, None
    return total * 1024, None if free is None else (total - free) * 1024


def _huge_pages(root: Path) -> str | None:
    found = CHOSEN.search(sysfs.text(root / "sys/kernel/mm/transparent_hugepage/enabled"))
    return found and found[1]
