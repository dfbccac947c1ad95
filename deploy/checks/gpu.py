"""Checks of the GPUs: can they be read, does the driver fit the engine, is their memory free, is there shared memory.

Boxes without an NVIDIA device, and models.toml with ``gpu = "none"``, skip them.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from deploy import neighbours, output
from deploy.checks import Context, Verdict, fail, ok, skip, warn
from deploy.engine import Engine
from deploy.hardware import Gpu

GIVE_UP = 'or accept the CPU: [engines] gpu = "none" in models.toml'
USED_SHARE = 0.1
"""Of a GPU's memory. Below lie a desktop and the driver itself."""
SHARED_BYTES = 1 << 30
"""The ranks of a tensor-parallel engine pass tensors through /dev/shm; a container has 64 MiB unless told."""
CUDA_RUNTIME = re.compile(r"^nvidia-cuda-runtime==(\d+)\.", re.MULTILINE)


def devices(context: Context) -> Verdict:
    hardware = context.hardware
    if not context.gpu_wanted:
        return skip('[engines] gpu = "none"')
    if hardware.gpu_error:
        return fail(hardware.gpu_error, f"nvidia-smi  # must work first: reinstall the driver or reboot, {GIVE_UP}")
    if not hardware.gpus:
        return skip("no NVIDIA GPU")
    for gpu in hardware.gpus:
        if gpu.mig:
            return warn(
                f"{_name(gpu)} is split by MIG, and is planned as a whole", f"sudo nvidia-smi -i {gpu.index} -mig 0"
            )
    return ok(
        "; ".join(f"{_name(gpu)}, capability {gpu.compute_capability or output.UNKNOWN}" for gpu in hardware.gpus)
    )


def driver(context: Context) -> Verdict:
    hardware = context.hardware
    needed = cuda_major(context.engines)
    if not context.gpu_wanted or not hardware.gpus:
        return skip("no GPU to use")
    if hardware.cuda_major is None or needed is None:
        return skip(f"CUDA version of the driver ({hardware.driver or output.UNKNOWN}) or of the engine is unknown")
    seen = f"driver {hardware.driver or output.UNKNOWN} runs CUDA up to {hardware.cuda_major}"
    if hardware.cuda_major < needed:
        return fail(
            f"{seen}, the engine is built for CUDA {needed}",
            f"install a driver for CUDA {needed} (for 13: 580 or newer), {GIVE_UP}",
        )
    return ok(f"{seen}, the engine is built for {needed}")


def cuda_major(engines: tuple[Engine, ...]) -> int | None:
    """Which CUDA the GPU engine is built for, told by the runtime in its requirement set."""
    for engine in engines:
        if engine.device == "gpu" and (found := CUDA_RUNTIME.search(engine.requirements.read_text())):
            return int(found[1])
    return None


def memory(context: Context) -> Verdict:
    if not context.gpu_wanted or not context.hardware.gpus:
        return skip("no GPU to use")
    for gpu in context.hardware.gpus:
        if gpu.memory_total_bytes is None or gpu.memory_free_bytes is None:
            continue
        used, total = gpu.memory_total_bytes - gpu.memory_free_bytes, gpu.memory_total_bytes
        strangers = [entry.pid for entry in gpu.processes if not neighbours.is_ours(entry.pid, context.service_pid)]
        if used > total * USED_SHARE and (strangers or not gpu.processes):
            return warn(
                f"{_name(gpu)}: {output.size(used)} of {output.size(total)} used by {_users(strangers)}",
                f"nvidia-smi -i {gpu.index}  # shows who; end it, or less is planned",
            )
    return ok("no other process holds a notable part")


def shared_memory(context: Context, path: Path = Path("/dev/shm")) -> Verdict:
    if not context.gpu_planned:
        return skip("only an engine on GPUs needs it")
    size = shutil.disk_usage(path).total
    if size < SHARED_BYTES:
        return warn(
            f"`{path}` holds {output.size(size)}, engines on several GPUs need {output.size(SHARED_BYTES)}",
            f"mount -o remount,size=8G {path}  # of a container: docker run --shm-size=8g",
        )
    return ok(f"`{path}` holds {output.size(size)}")


def _users(pids: list[int]) -> str:
    return f"pid {', '.join(map(str, pids))}" if pids else "processes that cannot be seen from here"


def _name(gpu: Gpu) -> str:
    return f"GPU {gpu.index} ({gpu.name or output.UNKNOWN})"
