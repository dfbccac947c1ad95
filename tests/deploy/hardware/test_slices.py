"""MIG: slices as NVML gives them, with names and memory as NVIDIA's user guide prints them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from deploy.hardware import Hardware, detection, nvidia
from deploy.hardware.nvidia import Found
from tests.deploy.hardware import stub
from tests.deploy.hardware.stub import MIB, StubNvml

SLICE = 40448 * MIB


class Split(StubNvml):
    """Two H100, the second in two slices at places 0 and 2 of seven."""

    def __init__(self, failing: dict[str, int] | None = None) -> None:
        super().__init__(
            failing,
            nvmlDeviceGetCount=2,
            nvmlDeviceGetMigMode=lambda handle: [int(handle == "gpu1"), 0],
            nvmlDeviceGetMaxMigDeviceCount=7,
            nvmlDeviceGetMigDeviceHandleByIndex=self.piece,
            nvmlDeviceGetName=lambda handle: "NVIDIA H100 80GB HBM3" + " MIG 3g.40gb" * handle.startswith("mig"),
            nvmlDeviceGetUUID=lambda handle: f"MIG-{handle}" if handle.startswith("mig") else f"GPU-{handle}",
            nvmlDeviceGetMemoryInfo=self.memory,
            nvmlDeviceGetCudaComputeCapability=self.of_boards((9, 0)),
            nvmlDeviceGetEccMode=self.of_boards([1, 1]),
            nvmlDeviceGetTemperature=self.of_boards(30),
            nvmlDeviceGetComputeRunningProcesses_v3=lambda handle: (
                [SimpleNamespace(pid=1, usedGpuMemory=44 * MIB)] if handle == "mig2" else []
            ),
        )

    @staticmethod
    def piece(handle: str, position: int) -> str:
        if handle != "gpu1" or position not in (0, 2):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return f"mig{position}"

    @staticmethod
    def memory(handle: str, version: int | None = None) -> Any:
        if handle.startswith("mig"):
            return stub.memory(handle, version, total=SLICE, free=SLICE - 44 * MIB, used=44 * MIB)
        return stub.memory(handle, version)

    @staticmethod
    def of_boards(value: Any) -> Any:
        def answer(handle: str, *_: int) -> Any:
            assert not handle.startswith("mig"), "a slice has no answer to this"
            return value

        return answer


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return stub.tree(tmp_path, {"dev/nvidiactl": ""})


def look(root: Path, nvml: StubNvml) -> Found:
    return nvidia.look(root, [], nvml)


def test_slices_follow_the_whole_gpus_and_share_what_is_the_boards(root: Path) -> None:
    found = look(root, Split())
    assert [(gpu.index, gpu.slice_of, gpu.mig) for gpu in found.gpus] == [
        (0, None, False),
        (1, None, True),
        (2, 1, False),
        (3, 1, False),
    ]
    piece = found.gpus[3]
    assert (piece.name, piece.uuid) == ("NVIDIA H100 80GB HBM3 MIG 3g.40gb", "MIG-mig2")
    assert (piece.memory_total_bytes, piece.compute_capability, piece.ecc) == (SLICE, "9.0", True)
    assert (piece.pci, piece.power_limit_w, piece.nvlink) == ("0000:0f:00.0", None, False)
    assert found.error is None


def test_the_reading_of_a_slice_is_its_memory_and_its_processes(root: Path) -> None:
    *_, first, second = look(root, Split()).readings
    assert (first.index, first.memory_free_bytes, first.processes) == (2, SLICE - 44 * MIB, ())
    assert (second.index, [process.pid for process in second.processes]) == (3, [1])
    assert (second.temperature_c, second.throttled, second.uncorrected_errors) == (None, None, None)


def test_links_are_between_whole_gpus(root: Path) -> None:
    assert [(link.first, link.second) for link in look(root, Split()).links] == [(0, 1)]


def test_a_lost_gpu_does_not_move_the_slices_of_another(root: Path) -> None:
    def handle(index: int) -> str:
        if index == 0:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return f"gpu{index}"

    nvml = Split()
    nvml.answers["nvmlDeviceGetHandleByIndex"] = handle
    assert [gpu.index for gpu in look(root, nvml).gpus] == [1, 2, 3]


def test_a_split_gpu_whose_slices_cannot_be_seen_can_not_be_used(root: Path) -> None:
    found = look(root, Split({"nvmlDeviceGetMaxMigDeviceCount": pynvml.NVML_ERROR_UNKNOWN}))
    assert [gpu.mig for gpu in found.gpus] == [False, True]


def test_the_box_offers_the_slices_in_place_of_the_gpu_that_is_split(root: Path) -> None:
    found: Hardware = detection.detect(root, root=root, nvml=Split())
    assert [gpu.index for gpu in found.usable_gpus] == [0, 2, 3]
    assert found.reading(found.gpus[2]).memory_used_bytes == 44 * MIB
