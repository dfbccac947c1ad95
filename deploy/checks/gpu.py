"""Checks of the GPUs themselves: can they be read, does the driver fit, is their memory free and sound, their speed.

Boxes without an NVIDIA device, and models.toml with ``gpu = "none"``, skip them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from deploy import neighbours, output
from deploy.checks import Context, Verdict, fail, ok, skip, together, warn
from deploy.engine import Engine
from deploy.hardware import Gpu, GpuProcess, Hardware

GIVE_UP = 'or accept the CPU: [engines] gpu = "none" in models.toml'
USED_SHARE = 0.1
"""Of a GPU's memory. Below lie a desktop and the driver itself."""
CUDA_RUNTIME = re.compile(r"^nvidia-cuda-runtime==(\d+)\.(\d+)", re.MULTILINE)
DRIVERS = {12: "-525", 13: "-580"}
"""The first branch that runs a CUDA major version, as Ubuntu ends its package's name. Source: CUDA's release notes."""
DESKTOP = re.compile(r"\b(GeForce|RTX|TITAN|Quadro)\b")
"""In the names of NVIDIA's cards for desks, where ECC is off, or absent, as they are sold."""
HEAT = "nvidia-smi -q -d TEMPERATURE -i {}  # clean its fans and filters, or give it more air"
REMEDIES = {
    "thermal": HEAT,
    "hardware thermal": HEAT,
    "power": "nvidia-smi -q -d POWER -i {}  # then raise it, up to the maximum: sudo nvidia-smi -i {} -pl WATTS",
}
"""Of what holds clocks back, as ``deploy.hardware.readings`` names it; ``{}`` is the GPU's index."""
REMEDY = "nvidia-smi -q -d PERFORMANCE -i {}  # says more: look at its power cables, the power supply, its cooling"
FOLLOWS = "sync boost"
"""It keeps to the clocks of the slowest of its group, which gives the reason itself."""


def devices(context: Context) -> Verdict:
    hardware = context.hardware
    if not context.gpu_wanted:
        return skip('[engines] gpu = "none"')
    if hardware.gpu_error:
        return fail(hardware.gpu_error, f"nvidia-smi  # must work first: reinstall the driver or reboot, {GIVE_UP}")
    foreign = ", ".join(name(gpu) for gpu in hardware.gpus if gpu.vendor != "nvidia")
    unused = f"; no engine here uses {foreign}" if foreign else ""
    whole = [gpu for gpu in hardware.gpus if gpu.vendor == "nvidia"]
    if not whole:
        return skip(f"no NVIDIA GPU{unused}")
    named = [f"{name(gpu)}, capability {gpu.compute_capability or output.UNKNOWN}" for gpu in hardware.usable_gpus]
    return together(_unsliced(hardware), ok("; ".join(named) + unused))


def _unsliced(hardware: Hardware) -> Iterator[Verdict]:
    sliced = {gpu.slice_of for gpu in hardware.gpus}
    for gpu in hardware.gpus:
        if gpu.mig and gpu.index not in sliced:
            yield warn(
                f"{name(gpu)} is split by MIG and has no slice: nothing of it can be used",
                f"sudo nvidia-smi -i {gpu.index} -mig 0  # or make one: sudo nvidia-smi mig -i {gpu.index} -cgi 0 -C",
            )


def driver(context: Context) -> Verdict:
    """A driver runs what is built for its own CUDA major version, whatever the minor one, and for older ones."""
    if reason := absent(context):
        return skip(reason)
    hardware, needed = context.hardware, cuda(context.engines)
    if hardware.cuda_major is None or needed is None:
        return skip(f"CUDA version of the driver ({hardware.driver or output.UNKNOWN}) or of the engine is unknown")
    newest = f"{hardware.cuda_major}" if hardware.cuda_minor is None else f"{hardware.cuda_major}.{hardware.cuda_minor}"
    seen = f"driver {hardware.driver or output.UNKNOWN} runs CUDA up to {newest}"
    if hardware.cuda_major < needed[0]:
        return fail(
            f"{seen}, the engine is built for CUDA {needed[0]}",
            f"sudo apt-get install nvidia-driver{DRIVERS.get(needed[0], '')}  # or newer; then reboot, {GIVE_UP}",
        )
    return ok(f"{seen}, the engine is built for {needed[0]}.{needed[1]}")


def cuda(engines: tuple[Engine, ...]) -> tuple[int, int] | None:
    """Which CUDA the GPU engine is built for, told by the runtime in its requirement set."""
    for engine in engines:
        if engine.device == "gpu" and (found := CUDA_RUNTIME.search(engine.requirements.read_text())):
            return int(found[1]), int(found[2])
    return None


def memory(context: Context) -> Verdict:
    """What others hold: the plan takes only what is free."""
    if reason := absent(context):
        return skip(reason)
    found = (_memory(context, gpu) for gpu in context.hardware.usable_gpus)
    return together(found, ok("no other process holds a notable part"))


def _memory(context: Context, gpu: Gpu) -> Verdict:
    reading, total = context.hardware.reading(gpu), gpu.memory_total_bytes
    if total is None or reading.memory_free_bytes is None:
        return skip(f"{name(gpu)}: free memory is unknown")
    used = total - reading.memory_free_bytes
    strangers = [process for process in reading.processes if not neighbours.is_ours(process.pid, context.service_pid)]
    if used <= total * USED_SHARE or (reading.processes and not strangers):
        return ok(name(gpu))
    seen = f"{name(gpu)}: {output.size(used)} of {output.size(total)} used by"
    if not strangers:
        return warn(
            f"{seen} processes that cannot be seen from here", "sudo fuser -v /dev/nvidia*  # shows who; end it"
        )
    pids = " ".join(str(process.pid) for process in strangers)
    return warn(f"{seen} {', '.join(map(_process, strangers))}", f"kill {pids}  # if it can be spared: less is planned")


def _process(process: GpuProcess) -> str:
    return f"pid {process.pid}" + (f" ({process.name})" if process.name else "")


def errors(context: Context) -> Verdict:
    """Memory that has failed, and memory of a data-centre card that nobody watches."""
    if reason := absent(context):
        return skip(reason)
    counts = {gpu: context.hardware.reading(gpu).uncorrected_errors for gpu in cards(context)}
    silent = all(count is None for count in counts.values())
    fine = skip("no GPU here counts errors of its memory") if silent else ok("none uncorrected")
    return together((_errors(gpu, count) for gpu, count in counts.items()), fine)


def _errors(gpu: Gpu, count: int | None) -> Verdict:
    if count:
        return fail(
            f"{name(gpu)}: {count} uncorrected memory error(s) since the driver was loaded",
            f"sudo nvidia-smi -i {gpu.index} -r  # with nothing running on it; if they come back, replace the card",
        )
    if gpu.ecc is False and gpu.name and not DESKTOP.search(gpu.name):
        return warn(
            f"{name(gpu)}: ECC is off, so that a flipped bit is a wrong answer",
            f"sudo nvidia-smi -i {gpu.index} -e 1  # then reboot",
        )
    return ok(name(gpu))


def clocks(context: Context) -> Verdict:
    if reason := absent(context):
        return skip(reason)
    silent = all(context.hardware.reading(gpu).throttled is None for gpu in cards(context))
    fine = skip("no GPU here tells whether it is held back") if silent else ok("not held back")
    return together((_clocks(context, gpu) for gpu in cards(context)), fine)


def _clocks(context: Context, gpu: Gpu) -> Verdict:
    reading = context.hardware.reading(gpu)
    reasons = tuple(reason for reason in reading.throttled or () if reason != FOLLOWS)
    # A busy GPU runs into its power limit: that is what the limit is for.
    if not reasons or (reasons == ("power",) and context.service_pid is not None):
        return ok(name(gpu))
    facts = (
        f"{reading.temperature_c} °C" if reading.temperature_c is not None else "",
        f"{reading.power_w:.0f} W" if reading.power_w is not None else "",
        f"limit {gpu.power_limit_w:.0f} W" if gpu.power_limit_w is not None else "",
    )
    said = ", ".join(fact for fact in facts if fact)
    remedies = dict.fromkeys(REMEDIES.get(reason, REMEDY).replace("{}", str(gpu.index)) for reason in reasons)
    return warn(
        f"{name(gpu)} is held back now: {', '.join(reasons)}" + (f" ({said})" if said else ""), "\n".join(remedies)
    )


def absent(context: Context) -> str | None:
    """Why there is no GPU to check, if so."""
    if not context.gpu_wanted:
        return '[engines] gpu = "none"'
    return None if context.hardware.usable_gpus else "no NVIDIA GPU to use"


def cards(context: Context) -> tuple[Gpu, ...]:
    """NVIDIA devices as they sit in their slots: not the slices of one."""
    return tuple(gpu for gpu in context.hardware.gpus if gpu.vendor == "nvidia" and gpu.slice_of is None)


def name(gpu: Gpu) -> str:
    return f"GPU {gpu.index} ({gpu.name or output.UNKNOWN})"
