"""A stand-in for pynvml that answers from tables, whose every call can be made to fail; small trees of /sys."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml

GIB, MIB = 1 << 30, 1 << 20
TOTAL, FREE, USED = 81559 * MIB, 81106 * MIB, MIB
"""Of an idle H100, whose driver keeps 452 MiB for itself."""
UNCORRECTED, VOLATILE = pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC


def memory(_: object, version: int | None = None, *, total: int = TOTAL, free: int = FREE, used: int = USED) -> Any:
    """As the driver answers: the first version has no word for its reserve, and counts it as used."""
    if version is None:
        return SimpleNamespace(total=total, free=free, used=total - free)
    assert version == pynvml.nvmlMemory_v2
    return SimpleNamespace(version=version, total=total, free=free, used=used, reserved=total - free - used)


ANSWERS: dict[str, Any] = {
    "nvmlInit": None,
    "nvmlShutdown": None,
    "nvmlSystemGetDriverVersion": "580.105.08",
    "nvmlSystemGetCudaDriverVersion_v2": 13020,
    "nvmlDeviceGetCount": 1,
    "nvmlDeviceGetHandleByIndex": lambda index: f"gpu{index}",
    "nvmlDeviceGetName": "NVIDIA H100 80GB HBM3",
    "nvmlDeviceGetUUID": "GPU-0",
    "nvmlDeviceGetPciInfo": SimpleNamespace(busId=b"00000000:0F:00.0"),
    "nvmlDeviceGetCudaComputeCapability": (9, 0),
    "nvmlDeviceGetMemoryInfo": memory,
    "nvmlDeviceGetMigMode": [0, 0],
    "nvmlDeviceGetMaxMigDeviceCount": 0,
    "nvmlDeviceGetMigDeviceHandleByIndex": None,
    "nvmlDeviceGetNvLinkState": 1,
    "nvmlDeviceGetEccMode": [1, 0],
    "nvmlDeviceGetPowerManagementLimit": 700_000,
    "nvmlDeviceGetMaxPcieLinkGeneration": 5,
    "nvmlDeviceGetMaxPcieLinkWidth": 16,
    "nvmlDeviceGetComputeRunningProcesses_v3": [],
    "nvmlDeviceGetGraphicsRunningProcesses_v3": [],
    "nvmlDeviceGetTemperature": lambda _, sensor: {pynvml.NVML_TEMPERATURE_GPU: 27}[sensor],
    "nvmlDeviceGetPowerUsage": 71_500,
    "nvmlDeviceGetCurrentClocksEventReasons": 0,
    "nvmlDeviceGetCurrentClocksThrottleReasons": 0,
    "nvmlDeviceGetTotalEccErrors": lambda _, kind, counter: {(UNCORRECTED, VOLATILE): 3}[kind, counter],
    "nvmlDeviceGetCurrPcieLinkGeneration": 4,
    "nvmlDeviceGetCurrPcieLinkWidth": 8,
    "nvmlDeviceGetP2PStatus": pynvml.NVML_P2P_STATUS_OK,
    "nvmlDeviceGetTopologyCommonAncestor": pynvml.NVML_TOPOLOGY_SYSTEM,
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


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


def pci(root: Path, address: str, vendor: str, kind: str, device: str = "0x0001", **files: str) -> Path:
    """One device on the bus."""
    facts = {"vendor": vendor, "class": kind, "device": device, **files}
    return tree(root, {f"sys/bus/pci/devices/{address}/{name}": text for name, text in facts.items()})
