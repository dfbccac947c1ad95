"""Memory that our own engines hold now or have held, and that is free again when another plan replaces them."""

from __future__ import annotations

import os
import re
from pathlib import Path

import msgspec
import psutil

from deploy import measured, paths
from deploy.engine import Device
from deploy.hardware import GpuReading, Hardware, cgroup, detection, nvidia, pci
from serving import records

ROOT = Path("/")
HIGH_WATER = re.compile(rb"^VmHWM:\s*(\d+) kB$", re.MULTILINE)
"""Most RAM that a process has held; source: proc(5), /proc/PID/status."""


def resident_bytes(pid: int) -> int | None:
    """RAM of a process and its helpers; None where it is gone."""
    try:
        return sum(process.memory_info().rss for process in _family(pid))
    except psutil.Error:
        return None


def peak_bytes(pid: int, device: Device) -> int | None:
    """What an engine takes of its device. RAM: the most it has held; a GPU: what it holds now of the fullest.

    None where it is gone, or where that cannot be read. What helpers share is counted with each, so that a sum of more
    than the device has is none.
    """
    if device == "gpu":
        found = nvidia.look(ROOT, pci.gpus(ROOT))
        own = [gpu.memory_total_bytes for gpu in found.gpus if gpu.memory_total_bytes is not None]
        return possible(fullest_bytes(pid, found.readings), max(own, default=None))
    try:
        peak = sum(_high_water_bytes(process.pid) for process in _family(pid))
    except psutil.Error:
        return None
    limit = cgroup.limits(ROOT).memory_bytes
    total = psutil.virtual_memory().total
    return possible(peak or None, total if limit is None else min(total, limit))


def possible(peak: int | None, most: int | None) -> int | None:
    """The peak; None where the device has less memory than that."""
    return None if peak is not None and most is not None and peak > most else peak


def free_bytes(device: Device, devices: tuple[int, ...]) -> int | None:
    """Of RAM or the fullest of these GPUs, as the next plan will count it; None where it is not known."""
    return measured.free_bytes(given_back(detection.detect(paths.hub_cache())), device, devices)


def fullest_bytes(pid: int, gpus: tuple[GpuReading, ...]) -> int | None:
    """Of the GPU on which the engine and its helpers hold most; None where they are seen on none."""
    held = (sum(process.memory_bytes or 0 for process in gpu.processes if _root(process.pid) == pid) for gpu in gpus)
    return max(held, default=0) or None


def given_back(hardware: Hardware) -> Hardware:
    """The box as it will be once our engines have ended: what a new plan may count on."""
    pids = {record.process.pid for record in records.read_all().values() if record.process.alive}
    held = sum(resident_bytes(pid) or 0 for pid in pids)
    now = hardware.now
    if now.memory_available_bytes is not None:
        now = msgspec.structs.replace(now, memory_available_bytes=now.memory_available_bytes + held)
    if now.limit_used_bytes is not None:
        now = msgspec.structs.replace(now, limit_used_bytes=max(0, now.limit_used_bytes - held))
    gpus = tuple(_without(gpu, pids) for gpu in now.gpus)
    return msgspec.structs.replace(hardware, now=msgspec.structs.replace(now, gpus=gpus))


def _without(gpu: GpuReading, pids: set[int]) -> GpuReading:
    others = tuple(process for process in gpu.processes if _root(process.pid) not in pids)
    ours = sum(process.memory_bytes or 0 for process in gpu.processes if process not in others)
    return msgspec.structs.replace(
        gpu,
        memory_free_bytes=None if gpu.memory_free_bytes is None else gpu.memory_free_bytes + ours,
        memory_used_bytes=None if gpu.memory_used_bytes is None else max(0, gpu.memory_used_bytes - ours),
        processes=others,
    )


def _family(pid: int) -> tuple[psutil.Process, ...]:
    root = psutil.Process(pid)
    return (root, *root.children(recursive=True))


def _high_water_bytes(pid: int) -> int:
    """0 of one that has just ended: what it held is not known any more."""
    try:
        found = HIGH_WATER.search(Path(f"/proc/{pid}/status").read_bytes())
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0


def _root(pid: int) -> int:
    """The leader of its session, which an engine is: its workers are the ones that hold GPU memory."""
    try:
        return os.getsid(pid)
    except OSError:
        return pid
