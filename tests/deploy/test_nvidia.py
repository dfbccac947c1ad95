"""NVML: a stand-in whose every call can be made to fail, because on real boxes every one does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from deploy import nvidia
from deploy.hardware import Gpu, GpuProcess
from deploy.nvidia import Found

GIB = 1 << 30
WHOLE = Gpu(
    index=0,
    name="NVIDIA H100 80GB HBM3",
    uuid="GPU-0",
    compute_capability="9.0",
    memory_total_bytes=80 * GIB,
    memory_free_bytes=79 * GIB,
    mig=False,
    nvlink=True,
    processes=(GpuProcess(pid=7, memory_bytes=GIB), GpuProcess(pid=8, memory_bytes=None)),
)
PROCESSES = [SimpleNamespace(pid=7, usedGpuMemory=GIB), SimpleNamespace(pid=8, usedGpuMemory=None)]
ANSWERS: dict[str, Any] = {
    "nvmlInit": None,
    "nvmlShutdown": None,
    "nvmlSystemGetDriverVersion": "580.105.08",
    "nvmlSystemGetCudaDriverVersion_v2": 13020,
    "nvmlDeviceGetCount": 1,
    "nvmlDeviceGetHandleByIndex": "handle",
    "nvmlDeviceGetName": "NVIDIA H100 80GB HBM3",
    "nvmlDeviceGetUUID": "GPU-0",
    "nvmlDeviceGetCudaComputeCapability": (9, 0),
    "nvmlDeviceGetMemoryInfo": SimpleNamespace(total=80 * GIB, free=79 * GIB, used=GIB),
    "nvmlDeviceGetMigMode": [0, 0],
    "nvmlDeviceGetNvLinkState": 1,
    "nvmlDeviceGetComputeRunningProcesses_v3": PROCESSES,
}


class StubNvml:
    """Answers from a table, or with NVML's error for the calls in ``failing``."""

    NVMLError = pynvml.NVMLError
    NVML_NVLINK_MAX_LINKS = 4

    def __init__(self, failing: dict[str, int] | None = None, **answers: Any) -> None:
        self.failing = failing or {}
        self.answers = {**ANSWERS, **answers}
        self.asked: list[str] = []

    def __getattr__(self, call: str) -> Callable[..., Any]:
        def answer(*arguments: Any) -> Any:
            self.asked.append(call)
            if call in self.failing:
                raise pynvml.NVMLError(self.failing[call])
            found = self.answers[call]
            return found(*arguments) if callable(found) else found

        return answer


@pytest.fixture
def with_device(tmp_path: Path) -> Path:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "nvidiactl").touch()
    return tmp_path


def pci(root: Path, vendor: str, kind: str) -> Path:
    device = root / "sys/bus/pci/devices/0000:01:00.0"
    device.mkdir(parents=True)
    (device / "vendor").write_text(f"{vendor}\n")
    (device / "class").write_text(f"{kind}\n")
    return root


def test_everything_is_read_and_the_library_is_let_go(with_device: Path) -> None:
    nvml = StubNvml()
    assert nvidia.look(with_device, nvml) == Found(gpus=(WHOLE,), driver="580.105.08", cuda_major=13)
    assert nvml.asked[-1] == "nvmlShutdown"


@pytest.mark.parametrize(
    ("call", "field", "without"),
    [
        ("nvmlDeviceGetName", "name", None),
        ("nvmlDeviceGetUUID", "uuid", None),
        ("nvmlDeviceGetCudaComputeCapability", "compute_capability", None),
        ("nvmlDeviceGetMemoryInfo", "memory_total_bytes", None),
        ("nvmlDeviceGetMemoryInfo", "memory_free_bytes", None),
        ("nvmlDeviceGetMigMode", "mig", None),
        ("nvmlDeviceGetNvLinkState", "nvlink", None),
        ("nvmlDeviceGetComputeRunningProcesses_v3", "processes", ()),
    ],
)
def test_a_call_that_fails_leaves_its_own_field_unknown(
    with_device: Path, call: str, field: str, without: object
) -> None:
    found = nvidia.look(with_device, StubNvml({call: pynvml.NVML_ERROR_NOT_SUPPORTED}))
    (gpu,) = found.gpus
    assert getattr(gpu, field) == without
    assert (gpu.index, found.driver, found.error) == (0, "580.105.08", None)
    assert sum(getattr(gpu, name) != getattr(WHOLE, name) for name in WHOLE.__struct_fields__) in (1, 2)


@pytest.mark.parametrize(
    ("call", "field"),
    [("nvmlSystemGetDriverVersion", "driver"), ("nvmlSystemGetCudaDriverVersion_v2", "cuda_major")],
)
def test_an_unknown_driver_version_is_unknown(with_device: Path, call: str, field: str) -> None:
    found = nvidia.look(with_device, StubNvml({call: pynvml.NVML_ERROR_UNKNOWN}))
    assert getattr(found, field) is None
    assert found.gpus == (WHOLE,)


def test_a_library_that_does_not_fit_the_loaded_driver(with_device: Path) -> None:
    nvml = StubNvml({"nvmlInit": pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH})
    found = nvidia.look(with_device, nvml)
    assert found.gpus == ()
    assert found.error is not None
    assert "/dev/nvidiactl" in found.error
    assert "version mismatch" in found.error


def test_a_lost_gpu_is_named_and_the_others_are_read(with_device: Path) -> None:
    def handle(index: int) -> str:
        if index == 1:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return "handle"

    found = nvidia.look(with_device, StubNvml(nvmlDeviceGetCount=3, nvmlDeviceGetHandleByIndex=handle))
    assert [gpu.index for gpu in found.gpus] == [0, 2]
    assert found.error == "GPU 1: GPU is lost"


@pytest.mark.parametrize("nvml", [StubNvml(nvmlDeviceGetCount=0), StubNvml({"nvmlDeviceGetCount": 999})])
def test_a_device_that_nvml_does_not_see_is_an_error_not_a_box_without_gpus(with_device: Path, nvml: StubNvml) -> None:
    found = nvidia.look(with_device, nvml)
    assert (found.gpus, found.error) == ((), "`/dev/nvidiactl` exists, but NVML sees no GPU")


def test_links_that_are_all_down_and_fewer_than_the_binding_knows(with_device: Path) -> None:
    def state(_: object, link: int) -> int:
        if link >= 2:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        return 0

    (gpu,) = nvidia.look(with_device, StubNvml(nvmlDeviceGetNvLinkState=state)).gpus
    assert gpu.nvlink is False


def test_mig_is_seen(with_device: Path) -> None:
    (gpu,) = nvidia.look(with_device, StubNvml(nvmlDeviceGetMigMode=[1, 1])).gpus
    assert gpu.mig is True


def test_without_a_trace_of_nvidia_the_library_is_not_even_asked(tmp_path: Path) -> None:
    nvml = StubNvml()
    assert nvidia.look(tmp_path, nvml) == Found()
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
    found = nvidia.look(pci(tmp_path, vendor, kind), nvml)
    assert (found.error is not None) is gpu
    if found.error:
        assert found.error.startswith("PCI device 0000:01:00.0 is an NVIDIA GPU")
        assert "NVML Shared Library Not Found" in found.error


def test_the_real_binding_has_every_call_and_fails_the_way_we_expect(with_device: Path) -> None:
    for call in ANSWERS:
        assert callable(getattr(pynvml, call))
    found = nvidia.look(with_device)
    assert found.gpus or found.error
