"""NVML: a stand-in whose every call can be made to fail, because on real boxes every one does."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pynvml
import pytest

from deploy.hardware import Gpu, GpuProcess, GpuReading, nvidia, pci
from deploy.hardware.nvidia import Found
from tests.deploy.hardware import stub
from tests.deploy.hardware.stub import ANSWERS, FREE, MIB, TOTAL, USED, StubNvml

WHOLE = Gpu(
    index=0,
    name="NVIDIA H100 80GB HBM3",
    uuid="GPU-0",
    pci="0000:0f:00.0",
    compute_capability="9.0",
    memory_total_bytes=TOTAL,
    mig=False,
    nvlink=True,
    ecc=True,
    power_limit_w=700.0,
    pcie_generation=5,
    pcie_width=16,
    numa_node=1,
)
READING = GpuReading(
    index=0,
    memory_free_bytes=FREE,
    memory_used_bytes=USED,
    temperature_c=27,
    power_w=71.5,
    throttled=(),
    uncorrected_errors=3,
    pcie_generation=4,
    pcie_width=8,
)


@pytest.fixture
def with_device(tmp_path: Path) -> Path:
    """A box with the driver's device node, and the card on its second NUMA node."""
    stub.pci(tmp_path, "0000:0f:00.0", "0x10de", "0x030200", numa_node="1")
    return stub.tree(tmp_path, {"dev/nvidiactl": ""})


def look(root: Path, nvml: Any = None) -> Found:
    return nvidia.look(root, pci.gpus(root), nvml)


def test_everything_is_read_and_the_library_is_let_go(with_device: Path) -> None:
    nvml = StubNvml()
    assert look(with_device, nvml) == Found(
        gpus=(WHOLE,), readings=(READING,), driver="580.105.08", cuda_major=13, cuda_minor=2
    )
    assert nvml.asked[-1] == "nvmlShutdown"


@pytest.mark.parametrize(
    ("call", "field"),
    [
        ("nvmlDeviceGetName", "name"),
        ("nvmlDeviceGetUUID", "uuid"),
        ("nvmlDeviceGetCudaComputeCapability", "compute_capability"),
        ("nvmlDeviceGetMemoryInfo", "memory_total_bytes"),
        ("nvmlDeviceGetMigMode", "mig"),
        ("nvmlDeviceGetNvLinkState", "nvlink"),
        ("nvmlDeviceGetEccMode", "ecc"),
        ("nvmlDeviceGetPowerManagementLimit", "power_limit_w"),
        ("nvmlDeviceGetMaxPcieLinkGeneration", "pcie_generation"),
        ("nvmlDeviceGetMaxPcieLinkWidth", "pcie_width"),
    ],
)
@pytest.mark.parametrize("error", [pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND])
def test_a_call_that_fails_leaves_its_own_fact_unknown(with_device: Path, call: str, field: str, error: int) -> None:
    found = look(with_device, StubNvml({call: error}))
    (gpu,) = found.gpus
    differing = {name for name in WHOLE.__struct_fields__ if getattr(gpu, name) != getattr(WHOLE, name)}
    assert (differing, getattr(gpu, field)) == ({field}, None)
    assert (found.driver, found.error) == ("580.105.08", None)


@pytest.mark.parametrize(
    ("call", "fields"),
    [
        ("nvmlDeviceGetMemoryInfo", {"memory_free_bytes", "memory_used_bytes"}),
        ("nvmlDeviceGetTemperature", {"temperature_c"}),
        ("nvmlDeviceGetPowerUsage", {"power_w"}),
        ("nvmlDeviceGetTotalEccErrors", {"uncorrected_errors"}),
        ("nvmlDeviceGetCurrPcieLinkGeneration", {"pcie_generation"}),
        ("nvmlDeviceGetCurrPcieLinkWidth", {"pcie_width"}),
        ("nvmlDeviceGetComputeRunningProcesses_v3", set()),
    ],
)
def test_a_call_that_fails_leaves_its_own_reading_unknown(with_device: Path, call: str, fields: set[str]) -> None:
    found = look(with_device, StubNvml({call: pynvml.NVML_ERROR_NO_PERMISSION}))
    (reading,) = found.readings
    assert {name for name in READING.__struct_fields__ if getattr(reading, name) != getattr(READING, name)} == fields
    assert all(getattr(reading, name) is None for name in fields)
    assert found.error is None


@pytest.mark.parametrize(
    ("call", "unknown"),
    [
        ("nvmlSystemGetDriverVersion", {"driver"}),
        ("nvmlSystemGetCudaDriverVersion_v2", {"cuda_major", "cuda_minor"}),
    ],
)
def test_an_unknown_driver_version_is_unknown(with_device: Path, call: str, unknown: set[str]) -> None:
    found = look(with_device, StubNvml({call: pynvml.NVML_ERROR_UNKNOWN}))
    assert {name for name in ("driver", "cuda_major", "cuda_minor") if getattr(found, name) is None} == unknown
    assert found.gpus == (WHOLE,)


def test_a_driver_without_the_second_version_says_what_is_free_and_not_who_uses_the_rest(with_device: Path) -> None:
    def first_only(handle: object, version: int | None = None) -> Any:
        if version is not None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
        return stub.memory(handle)

    (reading,) = look(with_device, StubNvml(nvmlDeviceGetMemoryInfo=first_only)).readings
    assert (reading.memory_free_bytes, reading.memory_used_bytes) == (FREE, None)


def test_processes_have_names_and_one_that_computes_and_draws_is_told_once(with_device: Path) -> None:
    gone = 2**22 + 1  # above the largest pid that Linux gives
    own = SimpleNamespace(pid=os.getpid(), usedGpuMemory=5 * MIB)
    nvml = StubNvml(
        nvmlDeviceGetComputeRunningProcesses_v3=[own, SimpleNamespace(pid=gone, usedGpuMemory=None)],
        nvmlDeviceGetGraphicsRunningProcesses_v3=[own],
    )
    (reading,) = look(with_device, nvml).readings
    assert reading.processes == (
        GpuProcess(pid=os.getpid(), name=psutil.Process().name(), memory_bytes=5 * MIB),
        GpuProcess(pid=gone, name=None, memory_bytes=None),
    )


@pytest.mark.parametrize(
    ("bits", "words"),
    [
        (pynvml.nvmlClocksEventReasonGpuIdle, ()),
        (pynvml.nvmlClocksEventReasonApplicationsClocksSetting, ()),
        (pynvml.nvmlClocksEventReasonDisplayClockSetting, ()),
        (pynvml.nvmlClocksEventReasonSwPowerCap, ("power",)),
        (pynvml.nvmlClocksEventReasonSwThermalSlowdown, ("thermal",)),
        (
            pynvml.nvmlClocksEventReasonHwSlowdown | pynvml.nvmlClocksEventReasonHwThermalSlowdown,
            ("hardware", "hardware thermal"),
        ),
        (pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown | 1, ("power brake",)),
    ],
)
def test_what_was_asked_for_is_no_throttling_and_the_rest_is_named(
    with_device: Path, bits: int, words: tuple[str, ...]
) -> None:
    (reading,) = look(with_device, StubNvml(nvmlDeviceGetCurrentClocksEventReasons=bits)).readings
    assert reading.throttled == words


def test_an_older_driver_has_the_reasons_under_their_older_name(with_device: Path) -> None:
    failing = {"nvmlDeviceGetCurrentClocksEventReasons": pynvml.NVML_ERROR_FUNCTION_NOT_FOUND}
    older = {"nvmlDeviceGetCurrentClocksThrottleReasons": pynvml.nvmlClocksThrottleReasonSwPowerCap}
    (reading,) = look(with_device, StubNvml(failing, **older)).readings
    assert reading.throttled == ("power",)
    (reading,) = look(with_device, StubNvml({**failing, **dict.fromkeys(older, 3)})).readings
    assert reading.throttled is None


def test_a_library_that_does_not_fit_the_loaded_driver(with_device: Path) -> None:
    nvml = StubNvml({"nvmlInit": pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH})
    found = look(with_device, nvml)
    assert found.gpus == ()
    assert found.error is not None
    assert "/dev/nvidiactl" in found.error
    assert "version mismatch" in found.error


def test_a_lost_gpu_is_named_and_the_others_are_read(with_device: Path) -> None:
    def handle(index: int) -> str:
        if index == 1:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return f"gpu{index}"

    found = look(with_device, StubNvml(nvmlDeviceGetCount=3, nvmlDeviceGetHandleByIndex=handle))
    assert [gpu.index for gpu in found.gpus] == [reading.index for reading in found.readings] == [0, 2]
    assert [(link.first, link.second) for link in found.links] == [(0, 2)]
    assert found.error == "GPU 1: GPU is lost"


def test_an_answer_of_an_unknown_shape_costs_that_gpu_alone(with_device: Path) -> None:
    def capability(handle: str) -> tuple[int, ...]:
        return (9,) if handle == "gpu0" else (9, 0)

    found = look(with_device, StubNvml(nvmlDeviceGetCount=2, nvmlDeviceGetCudaComputeCapability=capability))
    assert [gpu.index for gpu in found.gpus] == [1]
    assert found.error is not None
    assert found.error.startswith("GPU 0: ")


@pytest.mark.parametrize("raised", [ValueError("no text"), AttributeError("too old"), OSError("gone"), RuntimeError()])
def test_what_the_binding_itself_raises_costs_one_fact(with_device: Path, raised: Exception) -> None:
    def name(handle: str) -> str:
        if handle == "gpu0":
            raise raised
        return "NVIDIA H100 80GB HBM3"

    found = look(with_device, StubNvml(nvmlDeviceGetCount=2, nvmlDeviceGetName=name))
    assert [gpu.name for gpu in found.gpus] == [None, "NVIDIA H100 80GB HBM3"]
    assert found.error is None


@pytest.mark.parametrize("nvml", [StubNvml(nvmlDeviceGetCount=0), StubNvml({"nvmlDeviceGetCount": 999})])
def test_a_device_that_nvml_does_not_see_is_an_error_not_a_box_without_gpus(with_device: Path, nvml: StubNvml) -> None:
    found = look(with_device, nvml)
    assert (found.gpus, found.error) == ((), "`/dev/nvidiactl` exists, but NVML sees no GPU")


def test_links_that_are_all_down_and_fewer_than_the_binding_knows(with_device: Path) -> None:
    def state(_: object, link: int) -> int:
        if link >= 2:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        return 0

    (gpu,) = look(with_device, StubNvml(nvmlDeviceGetNvLinkState=state)).gpus
    assert gpu.nvlink is False


def test_a_card_whose_links_are_down_is_joined_over_pcie(with_device: Path) -> None:
    nvml = StubNvml(nvmlDeviceGetCount=3, nvmlDeviceGetNvLinkState=lambda handle, _: int(handle != "gpu2"))
    assert [link.path for link in look(with_device, nvml).links] == ["nvlink", "system", "system"]


def test_where_every_gpu_is_lost_each_is_named(with_device: Path) -> None:
    lost = StubNvml({"nvmlDeviceGetHandleByIndex": pynvml.NVML_ERROR_GPU_IS_LOST}, nvmlDeviceGetCount=2)
    assert look(with_device, lost) == Found(
        error="GPU 0: GPU is lost; GPU 1: GPU is lost", driver="580.105.08", cuda_major=13, cuda_minor=2
    )


def test_without_a_trace_of_nvidia_the_library_is_not_even_asked(tmp_path: Path) -> None:
    nvml = StubNvml()
    assert look(tmp_path, nvml) == Found()
    assert nvml.asked == []


@pytest.mark.parametrize(
    ("vendor", "kind", "gpu"),
    [
        ("0x10de", "0x030200", True),
        ("0x10de", "0x030000", True),
        ("0x10de", "0x040300", False),
        ("0x10de", "0x068000", False),
        ("0x1002", "0x030000", False),
    ],
    ids=["3d", "vga", "its sound", "nvswitch", "amd"],
)
def test_only_a_display_device_of_nvidia_on_the_bus_is_a_gpu(tmp_path: Path, vendor: str, kind: str, gpu: bool) -> None:
    nvml = StubNvml({"nvmlInit": pynvml.NVML_ERROR_LIBRARY_NOT_FOUND})
    found = look(stub.pci(tmp_path, "0000:01:00.0", vendor, kind), nvml)
    assert (found.error is not None) is gpu
    if found.error:
        assert found.error.startswith("PCI device 0000:01:00.0 is an NVIDIA GPU")
        assert "NVML Shared Library Not Found" in found.error


def test_the_real_binding_has_every_call_and_fails_the_way_we_expect(with_device: Path) -> None:
    for call in ANSWERS:
        assert callable(getattr(pynvml, call))
    found = look(with_device)
    assert found.gpus or found.error
