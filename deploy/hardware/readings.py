"""An NVIDIA GPU at one moment: memory and who holds it, heat, power, and why its clocks are held back."""

from __future__ import annotations

import msgspec
import psutil

from deploy.hardware import GpuProcess, GpuReading
from deploy.hardware.nvml import Device, Nvml

THROTTLES = {
    0x004: "power",
    0x008: "hardware",
    0x010: "sync boost",
    0x020: "thermal",
    0x040: "hardware thermal",
    0x080: "power brake",
    0x200: "board limit",
    0x400: "reliability",
}
"""NVML's clock event reasons. Left out are those that say what was asked for: idle, and clocks set by a user."""
UNCORRECTED, VOLATILE, ON_CHIP = 1, 0, 0
"""NVML_MEMORY_ERROR_TYPE_*, NVML_*_ECC (since the driver was loaded), NVML_TEMPERATURE_GPU."""


def read(nvml: Nvml, device: Device) -> GpuReading:
    """Of a slice memory and processes alone: the rest is the board's, and is told of it."""
    memory = nvml.memory(device)
    own = GpuReading(
        index=device.index,
        memory_free_bytes=memory.free,
        memory_used_bytes=memory.used,
        processes=_processes(nvml, device),
    )
    return own if device.slice_of is not None else _whole(nvml, device, own)


def _whole(nvml: Nvml, device: Device, own: GpuReading) -> GpuReading:
    ask, handle = nvml.ask, device.handle
    power_mw = ask("nvmlDeviceGetPowerUsage", handle)
    return msgspec.structs.replace(
        own,
        temperature_c=ask("nvmlDeviceGetTemperature", handle, ON_CHIP),
        power_w=None if power_mw is None else power_mw / 1000,
        throttled=_throttled(nvml, device),
        uncorrected_errors=ask("nvmlDeviceGetTotalEccErrors", handle, UNCORRECTED, VOLATILE),
        pcie_generation=ask("nvmlDeviceGetCurrPcieLinkGeneration", handle),
        pcie_width=ask("nvmlDeviceGetCurrPcieLinkWidth", handle),
    )


def _processes(nvml: Nvml, device: Device) -> tuple[GpuProcess, ...]:
    """Once each: one that computes and draws is in both lists, with the same memory."""
    calls = ("nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetGraphicsRunningProcesses_v3")
    found = {entry.pid: entry for call in calls for entry in nvml.ask(call, device.handle) or ()}
    return tuple(
        GpuProcess(pid=pid, name=_name(pid), memory_bytes=entry.usedGpuMemory) for pid, entry in sorted(found.items())
    )


def _name(pid: int) -> str | None:
    try:
        return psutil.Process(pid).name()
    except psutil.Error:
        return None


def _throttled(nvml: Nvml, device: Device) -> tuple[str, ...] | None:
    reasons = nvml.ask("nvmlDeviceGetCurrentClocksEventReasons", device.handle)
    if reasons is None:
        reasons = nvml.ask("nvmlDeviceGetCurrentClocksThrottleReasons", device.handle)
    return None if reasons is None else tuple(word for bit, word in THROTTLES.items() if reasons & bit)
