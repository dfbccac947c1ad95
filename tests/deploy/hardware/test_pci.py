"""GPUs by their traces on the PCI bus, in small trees of /sys."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.hardware import Gpu, detection, pci
from tests.deploy.hardware import stub
from tests.deploy.hardware.stub import StubNvml

MI300X = 206141652992


def named(root: Path) -> tuple[Gpu, ...]:
    return pci.named(pci.gpus(root), first=0)


def test_an_accelerator_without_a_display_with_what_its_driver_tells(tmp_path: Path) -> None:
    files = {"mem_info_vram_total": str(MI300X), "numa_node": "1"}
    stub.pci(tmp_path, "0000:83:00.0", "0x1002", "0x120000", "0x74a1", **files)
    assert named(tmp_path) == (
        Gpu(
            index=0,
            vendor="amd",
            name="AMD Instinct MI300X",
            pci="0000:83:00.0",
            memory_total_bytes=MI300X,
            numa_node=1,
        ),
    )


def test_the_boards_own_name_comes_first(tmp_path: Path) -> None:
    stub.pci(tmp_path, "0000:83:00.0", "0x1002", "0x120000", "0x74a1", product_name="AMD Instinct MI300X OAM")
    assert [gpu.name for gpu in named(tmp_path)] == ["AMD Instinct MI300X OAM"]


@pytest.mark.parametrize(
    ("vendor", "device", "name"),
    [
        ("0x8086", "0x56a0", "Intel Arc A770"),
        ("0x8086", "0x9a49", "Intel GPU 8086:9a49"),
        ("0x1002", "0x1638", "AMD GPU 1002:1638"),
    ],
)
def test_a_known_card_has_its_name_and_another_its_numbers(tmp_path: Path, vendor: str, device: str, name: str) -> None:
    (gpu,) = named(stub.pci(tmp_path, "0000:00:02.0", vendor, "0x030000", device, numa_node="-1"))
    assert (gpu.name, gpu.memory_total_bytes, gpu.numa_node, gpu.compute_capability) == (name, None, None, None)


@pytest.mark.parametrize(
    ("vendor", "kind"),
    [
        ("0x8086", "0x120000"),
        ("0x8086", "0x060000"),
        ("0x1002", "0x040300"),
        ("0x1a03", "0x030000"),
        ("0x1af4", "0x030000"),
    ],
    ids=["Intel's NPU", "a bridge", "AMD's sound", "a server's console", "a virtual display"],
)
def test_other_devices_are_no_gpus(tmp_path: Path, vendor: str, kind: str) -> None:
    assert named(stub.pci(tmp_path, "0000:00:02.0", vendor, kind)) == ()


def test_on_a_mixed_box_the_others_follow_nvidias(tmp_path: Path) -> None:
    stub.pci(tmp_path, "0000:00:02.0", "0x8086", "0x030000", "0xa780")
    stub.pci(tmp_path, "0000:0f:00.0", "0x10de", "0x030200")
    found = detection.detect(tmp_path, root=tmp_path, nvml=StubNvml())
    assert [(gpu.index, gpu.vendor) for gpu in found.gpus] == [(0, "nvidia"), (1, "intel")]
    assert [gpu.index for gpu in found.usable_gpus] == [0]


def test_gpus_are_numbered_by_their_address(tmp_path: Path) -> None:
    addresses = [f"0000:{bus:02x}:00.0" for bus in (0xC1, 0x41, 0x81, 0x01)]
    for address in addresses:
        stub.pci(tmp_path, address, "0x1002", "0x120000", "0x74a1")
    assert [gpu.pci for gpu in named(tmp_path)] == sorted(addresses)


@pytest.mark.parametrize("bus", [b"00000000:0F:00.0", "00000000:0F:00.0", "0000:0f:00.0"])
def test_nvmls_bus_id_becomes_the_kernels(bus: str | bytes) -> None:
    assert pci.address(bus) == "0000:0f:00.0"


def test_a_domain_that_needs_more_digits_keeps_them() -> None:
    assert pci.address("00010000:01:00.0") == "10000:01:00.0"
