"""NVIDIA GPUs and MIG slices through NVML, asked only where there is a trace of one. What fails stays None."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from deploy.hardware import Gpu, GpuReading, Link, links, pci, readings
from deploy.hardware.nvml import Device, Nvml


@dataclass(frozen=True)
class Found:
    """``error`` says why GPUs that seem to be there could not be read."""

    gpus: tuple[Gpu, ...] = ()
    links: tuple[Link, ...] = ()
    readings: tuple[GpuReading, ...] = ()
    error: str | None = None
    driver: str | None = None
    cuda_major: int | None = None
    cuda_minor: int | None = None


def look(root: Path, devices: Sequence[pci.Device], binding: Any = None) -> Found:
    """What NVML tells; nothing at all, and no error, where no NVIDIA device is. ``binding`` None: pynvml."""
    trace = _trace(root, devices)
    if trace is None:
        return Found()
    nvml = Nvml(binding or import_module("pynvml"))
    try:
        nvml.binding.nvmlInit()
    except nvml.failures as error:
        return Found(error=f"{trace}, but NVML does not start: {error}")
    try:
        return _read(nvml, root, trace)
    finally:
        nvml.ask("nvmlShutdown")


def _trace(root: Path, devices: Sequence[pci.Device]) -> str | None:
    """The first sign of an NVIDIA GPU; files only, so that a box without one pays nothing for the library."""
    for name in ("dev/nvidiactl", "usr/lib/wsl/lib/libnvidia-ml.so.1"):
        if (root / name).exists():
            return f"`/{name}` exists"
    address = next((device.address for device in devices if device.vendor == "nvidia"), None)
    return address and f"PCI device {address} is an NVIDIA GPU"


def _read(nvml: Nvml, root: Path, trace: str) -> Found:
    errors: list[str] = []
    devices = _devices(nvml, errors)
    gpus: list[Gpu] = []
    read: list[GpuReading] = []
    for device in devices:
        try:
            gpus.append(_gpu(nvml, root, device))
            read.append(readings.read(nvml, device))
        except nvml.failures as error:
            errors.append(f"GPU {device.index}: {error}")
    if not gpus and not errors:
        errors.append(f"{trace}, but NVML sees no GPU")
    cuda = nvml.ask("nvmlSystemGetCudaDriverVersion_v2")
    return Found(
        gpus=tuple(gpus),
        links=tuple(links.between(nvml, devices, {gpu.index for gpu in gpus if gpu.nvlink})),
        readings=tuple(read),
        error="; ".join(errors) or None,
        driver=nvml.ask("nvmlSystemGetDriverVersion"),
        cuda_major=None if cuda is None else cuda // 1000,
        cuda_minor=None if cuda is None else cuda % 1000 // 10,
    )


def _devices(nvml: Nvml, errors: list[str]) -> list[Device]:
    """The GPUs by NVML's index, then the slices of each in NVML's order."""
    whole: list[Device] = []
    count = nvml.ask("nvmlDeviceGetCount") or 0
    for index in range(count):
        try:
            handle = nvml.binding.nvmlDeviceGetHandleByIndex(index)
        except nvml.failures as error:
            errors.append(f"GPU {index}: {error}")
        else:
            whole.append(Device(index, handle, handle))
    slices = ((device, handle) for device in whole for handle in _slices(nvml, device))
    return whole + [
        Device(index, handle, device.handle, slice_of=device.index)
        for index, (device, handle) in enumerate(slices, start=count)
    ]


def _slices(nvml: Nvml, device: Device) -> Iterator[Any]:
    if not _split(nvml, device):
        return
    for position in range(nvml.ask("nvmlDeviceGetMaxMigDeviceCount", device.handle) or 0):
        handle = nvml.ask("nvmlDeviceGetMigDeviceHandleByIndex", device.handle, position)
        if handle is not None:
            yield handle


def _split(nvml: Nvml, device: Device) -> bool | None:
    mode = nvml.ask("nvmlDeviceGetMigMode", device.board)
    return None if mode is None else bool(mode[0])


def _gpu(nvml: Nvml, root: Path, device: Device) -> Gpu:
    """Of a slice: its own name, uuid and memory, and of the board what a slice shares."""
    ask, board = nvml.ask, device.board
    whole = device.slice_of is None
    bus = ask("nvmlDeviceGetPciInfo", board)
    address = None if bus is None else pci.address(bus.busId)
    capability = ask("nvmlDeviceGetCudaComputeCapability", board)
    ecc = ask("nvmlDeviceGetEccMode", board)
    power_mw = ask("nvmlDeviceGetPowerManagementLimit", board) if whole else None
    return Gpu(
        index=device.index,
        name=ask("nvmlDeviceGetName", device.handle),
        uuid=ask("nvmlDeviceGetUUID", device.handle),
        pci=address,
        compute_capability=None if capability is None else "{}.{}".format(*capability),
        memory_total_bytes=nvml.memory(device).total,
        mig=_split(nvml, device) if whole else False,
        slice_of=device.slice_of,
        nvlink=links.up(nvml, device) if whole else False,
        ecc=None if ecc is None else bool(ecc[0]),
        power_limit_w=None if power_mw is None else power_mw / 1000,
        pcie_generation=ask("nvmlDeviceGetMaxPcieLinkGeneration", board),
        pcie_width=ask("nvmlDeviceGetMaxPcieLinkWidth", board),
        numa_node=None if address is None else pci.numa_node(root, address),
    )
