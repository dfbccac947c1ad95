"""How NVIDIA GPUs reach each other: NVLink, else the way over PCIe, and whether one reads the other's memory.

Source: the NVML API reference, as ``nvidia-smi topo -m`` and ``nvidia-smi topo -p2p r`` print it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Literal

from deploy.hardware import Link
from deploy.hardware.nvml import Device, Nvml

Path = Literal["nvlink", "internal", "single", "multiple", "hostbridge", "node", "system"]
ANCESTORS: dict[int, Path] = {
    0: "internal",
    10: "single",
    20: "multiple",
    30: "hostbridge",
    40: "node",
    50: "system",
}
"""NVML_TOPOLOGY_*."""
READ, NVLINK = 0, 2
"""NVML_P2P_CAPS_INDEX_*. The binding's own name for READ is a tuple, which its call refuses."""
OK, UNKNOWN = 0, 6
"""NVML_P2P_STATUS_*; all between them are reasons why not."""


def between(nvml: Nvml, devices: Sequence[Device], linked: set[int]) -> Iterator[Link]:
    """Of every pair of whole GPUs of which anything can be told. ``linked``: indices with an NVLink that is up."""
    for first, second in combinations((device for device in devices if device.slice_of is None), 2):
        path = _path(nvml, first, second, {first.index, second.index} <= linked)
        peer = _peer(nvml, first, second, READ)
        if path is not None or peer is not None:
            yield Link(first=first.index, second=second.index, path=path, peer=peer)


def up(nvml: Nvml, device: Device) -> bool | None:
    """Whether any link is up. The binding's number of links is that of the largest GPU: past its own, a call fails."""
    for link in range(nvml.binding.NVML_NVLINK_MAX_LINKS):
        state = nvml.ask("nvmlDeviceGetNvLinkState", device.handle, link)
        if state is None:
            return None if link == 0 else False
        if state:
            return True
    return False


def _path(nvml: Nvml, first: Device, second: Device, linked: bool) -> Path | None:
    direct = _peer(nvml, first, second, NVLINK) if linked else False
    if direct is not False:
        return "nvlink" if direct else None
    level = nvml.ask("nvmlDeviceGetTopologyCommonAncestor", first.handle, second.handle)
    return ANCESTORS.get(level)


def _peer(nvml: Nvml, first: Device, second: Device, capability: int) -> bool | None:
    status = nvml.ask("nvmlDeviceGetP2PStatus", first.handle, second.handle, capability)
    return None if status in (None, UNKNOWN) else status == OK
