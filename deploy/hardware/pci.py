"""GPUs on the PCI bus, from sysfs: what no library tells of is at least named.

Source: the kernel's sysfs-bus-pci and amdgpu documents; names from the PCI ID database (pci.ids, 2026-08).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from deploy.hardware import Gpu, sysfs

Vendor = Literal["nvidia", "amd", "intel"]
VENDORS: dict[str, Vendor] = {"0x10de": "nvidia", "0x1002": "amd", "0x8086": "intel"}
WORDS = {"nvidia": "NVIDIA", "amd": "AMD", "intel": "Intel"}
DISPLAY, ACCELERATOR = "0x03", "0x12"
"""Classes. AMD's accelerators without a display are of the second; what Intel has there are no GPUs."""
NAMES = {
    "1002:738c": "AMD Instinct MI100",
    "1002:740c": "AMD Instinct MI250X",
    "1002:740f": "AMD Instinct MI210",
    "1002:74a0": "AMD Instinct MI300A",
    "1002:74a1": "AMD Instinct MI300X",
    "1002:74a2": "AMD Instinct MI308X",
    "1002:74a5": "AMD Instinct MI325X",
    "1002:74b5": "AMD Instinct MI300X VF",
    "1002:75a0": "AMD Instinct MI350X",
    "1002:75a3": "AMD Instinct MI355X",
    "1002:744c": "AMD Radeon RX 7900 XT/7900 XTX",
    "1002:7550": "AMD Radeon RX 9070/9070 XT",
    "8086:56a0": "Intel Arc A770",
    "8086:a780": "Intel UHD Graphics 770",
    "8086:e20b": "Intel Arc B580",
}


class Device(NamedTuple):
    """``address`` is the bus id, ``id`` vendor and device as pci.ids has them."""

    vendor: Vendor
    address: str
    id: str
    folder: Path


def gpus(root: Path) -> list[Device]:
    """Every GPU of the three makers, by address. NVIDIA's bridges and sound devices are none."""
    found = []
    for folder in sorted(root.glob("sys/bus/pci/devices/*")):
        kind = sysfs.text(folder / "class")[: len(DISPLAY)]
        if kind not in (DISPLAY, ACCELERATOR):
            continue
        code = sysfs.text(folder / "vendor")
        vendor = VENDORS.get(code)
        if vendor is not None and (kind == DISPLAY or vendor == "amd"):
            device = sysfs.text(folder / "device")
            found.append(Device(vendor, folder.name, f"{code[2:]}:{device[2:]}", folder))
    return found


def named(devices: Sequence[Device], first: int) -> tuple[Gpu, ...]:
    """Those that NVML does not know, numbered from ``first``. Memory only where amdgpu tells it."""
    others = [device for device in devices if device.vendor != "nvidia"]
    return tuple(
        Gpu(
            index=index,
            vendor=device.vendor,
            name=_name(device),
            pci=device.address,
            memory_total_bytes=sysfs.number(device.folder / "mem_info_vram_total"),
            numa_node=sysfs.number(device.folder / "numa_node"),
        )
        for index, device in enumerate(others, start=first)
    )


def numa_node(root: Path, address: str) -> int | None:
    """The NUMA node that a device hangs on; None where the firmware does not say."""
    return sysfs.number(root / "sys/bus/pci/devices" / address / "numa_node")


def address(bus: str | bytes) -> str:
    """NVML's bus id, whose domain has eight digits, as sysfs has it."""
    text = bus.decode() if isinstance(bus, bytes) else bus
    domain, rest = text.lower().split(":", 1)
    return f"{int(domain, 16):04x}:{rest}"


def _name(device: Device) -> str:
    """The board's own word where it has one, else the database's, else its numbers."""
    product = sysfs.text(device.folder / "product_name")
    return product or NAMES.get(device.id) or f"{WORDS[device.vendor]} GPU {device.id}"
