"""NVIDIA GPUs through NVML, asked only where there is a trace of one. A call that fails leaves None.

Source: the NVML API reference; the Python binding is nvidia-ml-py.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from deploy.hardware import Gpu, GpuProcess

PCI_VENDOR = "0x10de"
PCI_DISPLAY_CLASS = "0x03"
"""Of a VGA or 3D controller. NVIDIA's bridges, switches and sound devices are no GPUs."""


@dataclass(frozen=True)
class Found:
    """``error`` says why GPUs that seem to be there could not be read."""

    gpus: tuple[Gpu, ...] = ()
    error: str | None = None
    driver: str | None = None
    cuda_major: int | None = None


def look(root: Path = Path("/"), nvml: Any = None) -> Found:
    """What NVML tells; nothing at all, and no error, where no NVIDIA device is. ``nvml`` None: pynvml."""
    trace = _trace(root)
    if trace is None:
        return Found()
    nvml = nvml or import_module("pynvml")
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return Found(error=f"{trace}, but NVML does not start: {error}")
    try:
        return _read(nvml, trace)
    finally:
        _ask(nvml, "nvmlShutdown")


def _trace(root: Path) -> str | None:
    """The first sign of an NVIDIA GPU; files only, so that a box without one pays nothing for the library."""
    for name in ("dev/nvidiactl", "usr/lib/wsl/lib/libnvidia-ml.so.1"):
        if (root / name).exists():
            return f"`/{name}` exists"
    for vendor in sorted(root.glob("sys/bus/pci/devices/*/vendor")):
        if _line(vendor) == PCI_VENDOR and _line(vendor.with_name("class")).startswith(PCI_DISPLAY_CLASS):
            return f"PCI device {vendor.parent.name} is an NVIDIA GPU"
    return None


def _read(nvml: Any, trace: str) -> Found:
    cuda = _ask(nvml, "nvmlSystemGetCudaDriverVersion_v2")
    gpus: list[Gpu] = []
    errors: list[str] = []
    count = _ask(nvml, "nvmlDeviceGetCount")
    for index in range(count or 0):
        try:
            gpus.append(_gpu(nvml, index))
        except nvml.NVMLError as error:
            errors.append(f"GPU {index}: {error}")
    if not count:
        errors.append(f"{trace}, but NVML sees no GPU")
    return Found(
        gpus=tuple(gpus),
        error="; ".join(errors) or None,
        driver=_ask(nvml, "nvmlSystemGetDriverVersion"),
        cuda_major=None if cuda is None else cuda // 1000,
    )


def _gpu(nvml: Any, index: int) -> Gpu:
    """Raises NVMLError where the device itself cannot be reached."""
    ask = partial(_ask, nvml)
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = ask("nvmlDeviceGetMemoryInfo", handle)
    capability = ask("nvmlDeviceGetCudaComputeCapability", handle)
    mig = ask("nvmlDeviceGetMigMode", handle)
    return Gpu(
        index=index,
        name=ask("nvmlDeviceGetName", handle),
        uuid=ask("nvmlDeviceGetUUID", handle),
        compute_capability=None if capability is None else "{}.{}".format(*capability),
        memory_total_bytes=None if memory is None else memory.total,
        memory_free_bytes=None if memory is None else memory.free,
        mig=None if mig is None else bool(mig[0]),
        nvlink=_nvlink(nvml, handle),
        processes=tuple(
            GpuProcess(pid=process.pid, memory_bytes=process.usedGpuMemory)
            for process in ask("nvmlDeviceGetComputeRunningProcesses_v3", handle) or ()
        ),
    )


def _nvlink(nvml: Any, handle: Any) -> bool | None:
    """Whether any link is up. The binding's number of links is that of the largest GPU: past its own, a call fails."""
    for link in range(nvml.NVML_NVLINK_MAX_LINKS):
        state = _ask(nvml, "nvmlDeviceGetNvLinkState", handle, link)
        if state is None:
            return None if link == 0 else False
        if state:
            return True
    return False


def _ask(nvml: Any, call: str, *arguments: Any) -> Any:
    try:
        return getattr(nvml, call)(*arguments)
    except nvml.NVMLError:
        return None


def _line(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
