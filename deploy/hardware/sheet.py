"""A box for people: what it is, and apart from that what was read of it now."""

from __future__ import annotations

from collections.abc import Iterator

from deploy import output
from deploy.hardware import Gpu, GpuReading, Hardware, Link

Row = tuple[str, str | None]


def facts(hardware: Hardware) -> Iterator[Row]:
    """Rows of what stays. None is what could not be read."""
    cpu, memory, disk = hardware.cpu, hardware.memory, hardware.disk
    yield "platform", hardware.platform
    yield "cpu", cpu.model
    yield "sockets", _count(cpu.sockets)
    cores = f"{_count(cpu.physical_cores)} physical, {_count(cpu.affinity_cores)} logical"
    yield "allowed cores", f"{cores}, quota {cpu.quota_cores or 'none'}"
    yield "usable cores", str(hardware.cores)
    yield "isa", " ".join(cpu.isa) or None
    yield "numa nodes", _count(cpu.numa_nodes)
    yield "memory", output.size(memory.total_bytes)
    if memory.limit_bytes is not None:
        yield "memory limit", output.size(memory.limit_bytes)
    yield "memory bandwidth", _rate(memory.bandwidth_bytes_per_s)
    yield "swap", output.size(memory.swap_total_bytes)
    yield "huge pages", memory.huge_pages
    turning = {None: None, True: "spinning", False: "solid state"}[disk.rotational]
    yield "disk", ", ".join(filter(None, (output.size(disk.total_bytes), disk.filesystem, turning)))
    yield "driver", _driver(hardware)
    if hardware.gpu_error:
        yield "gpu error", hardware.gpu_error
    for gpu in hardware.gpus:
        yield f"gpu {gpu.index}", ", ".join(_gpu(gpu))
    for link in hardware.links:
        yield f"gpu {link.first} to {link.second}", _link(link)
    yield "fingerprint", hardware.fingerprint
    if hardware.note:
        yield "note", hardware.note


def readings(hardware: Hardware) -> Iterator[Row]:
    """Rows of what was true when it was read."""
    yield "memory free", output.size(hardware.memory_free_bytes)
    yield "swap used", output.size(hardware.now.swap_used_bytes)
    yield "disk free", output.size(hardware.now.disk_free_bytes)
    for reading in hardware.now.gpus:
        yield f"gpu {reading.index}", ", ".join(_reading(reading))


def _driver(hardware: Hardware) -> str | None:
    if not hardware.gpu_error and not any(gpu.vendor == "nvidia" for gpu in hardware.gpus):
        return "none"
    if hardware.driver is None or hardware.cuda_major is None:
        return hardware.driver
    minor = "" if hardware.cuda_minor is None else f".{hardware.cuda_minor}"
    return f"{hardware.driver}, CUDA up to {hardware.cuda_major}{minor}"


def _gpu(gpu: Gpu) -> Iterator[str]:
    yield gpu.name or output.UNKNOWN
    yield output.size(gpu.memory_total_bytes)
    if gpu.vendor != "nvidia":
        yield "not used by any engine here"
        return
    if gpu.slice_of is not None:
        yield f"slice of gpu {gpu.slice_of}"
    if gpu.mig:
        yield "split by MIG, only its slices can be used"
    yield f"capability {gpu.compute_capability or output.UNKNOWN}"
    if gpu.ecc is not None:
        yield f"ECC {'on' if gpu.ecc else 'off'}"
    if gpu.power_limit_w is not None:
        yield f"{gpu.power_limit_w:.0f} W"
    if gpu.pcie_generation is not None:
        yield _pcie(gpu.pcie_generation, gpu.pcie_width)
    if gpu.nvlink:
        yield "NVLink"


def _link(link: Link) -> str:
    peer = {None: "peer access unknown", True: "peer access", False: "no peer access"}[link.peer]
    return f"{link.path or output.UNKNOWN}, {peer}"


def _reading(reading: GpuReading) -> Iterator[str]:
    yield f"{output.size(reading.memory_free_bytes)} free"
    if reading.temperature_c is not None:
        yield f"{reading.temperature_c} °C"
    if reading.power_w is not None:
        yield f"{reading.power_w:.0f} W"
    if reading.throttled is not None:
        yield f"held back by {' and '.join(reading.throttled)}" if reading.throttled else "not throttled"
    if reading.uncorrected_errors is not None:
        yield f"{reading.uncorrected_errors} uncorrected memory errors"
    if reading.pcie_generation is not None:
        yield _pcie(reading.pcie_generation, reading.pcie_width)
    for process in reading.processes:
        yield f"{process.name or output.UNKNOWN} (pid {process.pid}) holds {output.size(process.memory_bytes)}"


def _pcie(generation: int, width: int | None) -> str:
    return f"PCIe {generation}" if width is None else f"PCIe {generation} x{width}"


def _count(value: int | None) -> str:
    return output.UNKNOWN if value is None else str(value)


def _rate(bytes_per_s: float | None) -> str | None:
    return None if bytes_per_s is None else f"{output.size(int(bytes_per_s))}/s"
