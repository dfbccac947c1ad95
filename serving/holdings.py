"""Memory that our own engines hold now, and that is free again when another plan replaces them."""

from __future__ import annotations

import os

import msgspec
import psutil

from deploy.hardware import Gpu, Hardware
from serving import records


def resident_bytes(pid: int) -> int | None:
    """RAM of a process and its helpers; None where it is gone."""
    try:
        root = psutil.Process(pid)
        return sum(process.memory_info().rss for process in (root, *root.children(recursive=True)))
    except psutil.Error:
        return None


def given_back(hardware: Hardware) -> Hardware:
    """The box as it will be once our engines have ended: what a new plan may count on."""
    pids = {record.process.pid for record in records.read_all().values() if record.process.alive}
    held = sum(resident_bytes(pid) or 0 for pid in pids)
    memory = hardware.memory
    if memory.available_bytes is not None:
        memory = msgspec.structs.replace(memory, available_bytes=memory.available_bytes + held)
    if memory.limit_used_bytes is not None:
        memory = msgspec.structs.replace(memory, limit_used_bytes=max(0, memory.limit_used_bytes - held))
    gpus = tuple(_without(gpu, pids) for gpu in hardware.gpus)
    return msgspec.structs.replace(hardware, memory=memory, gpus=gpus)


def _without(gpu: Gpu, pids: set[int]) -> Gpu:
    ours = sum(process.memory_bytes or 0 for process in gpu.processes if _root(process.pid) in pids)
    if not ours or gpu.memory_free_bytes is None:
        return gpu
    return msgspec.structs.replace(gpu, memory_free_bytes=gpu.memory_free_bytes + ours)


def _root(pid: int) -> int:
    """The leader of its session, which an engine is: its workers are the ones that hold GPU memory."""
    try:
        return os.getsid(pid)
    except OSError:
        return pid
