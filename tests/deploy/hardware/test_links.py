"""Ways between GPUs, as NVML tells them pair by pair."""

from __future__ import annotations

from typing import Any

import pynvml
import pytest

from deploy.hardware import Link, links
from deploy.hardware.nvml import Device, Nvml
from tests.deploy.hardware.stub import StubNvml

NOT_SUPPORTED = pynvml.NVML_ERROR_NOT_SUPPORTED


def between(count: int, linked: set[int], failing: dict[str, int] | None = None, **answers: Any) -> list[Link]:
    devices = [Device(index, f"gpu{index}", f"gpu{index}") for index in range(count)]
    return list(links.between(Nvml(StubNvml(failing, **answers)), devices, linked))


def status(read: int, nvlink: int) -> Any:
    def answer(_first: str, _second: str, capability: int) -> int:
        return {0: read, 2: nvlink}[capability]

    return answer


def test_one_gpu_has_no_links() -> None:
    assert between(1, {0}) == []


def test_behind_a_switch_every_gpu_reaches_every_other_by_nvlink() -> None:
    found = between(8, set(range(8)))
    assert len(found) == 28
    assert {(link.path, link.peer) for link in found} == {("nvlink", True)}
    assert all(link.first < link.second for link in found)


@pytest.mark.parametrize(
    ("level", "path"),
    [
        (pynvml.NVML_TOPOLOGY_INTERNAL, "internal"),
        (pynvml.NVML_TOPOLOGY_SINGLE, "single"),
        (pynvml.NVML_TOPOLOGY_MULTIPLE, "multiple"),
        (pynvml.NVML_TOPOLOGY_HOSTBRIDGE, "hostbridge"),
        (pynvml.NVML_TOPOLOGY_NODE, "node"),
        (pynvml.NVML_TOPOLOGY_SYSTEM, "system"),
        (77, None),
    ],
)
def test_without_nvlink_the_nearest_common_bridge_is_the_way(level: int, path: str | None) -> None:
    (link,) = between(2, set(), nvmlDeviceGetTopologyCommonAncestor=level)
    assert (link.path, link.peer) == (path, True)


def test_cards_that_a_driver_keeps_apart_have_no_peer_access() -> None:
    nothing = status(pynvml.NVML_P2P_STATUS_CHIPSET_NOT_SUPPORTED, pynvml.NVML_P2P_STATUS_NOT_SUPPORTED)
    (link,) = between(2, set(), nvmlDeviceGetP2PStatus=nothing, nvmlDeviceGetTopologyCommonAncestor=40)
    assert link == Link(first=0, second=1, path="node", peer=False)


def test_of_bridged_cards_only_the_pairs_with_a_bridge_are_on_nvlink() -> None:
    def answer(first: str, second: str, capability: int) -> int:
        bridged = {first, second} in ({"gpu0", "gpu1"}, {"gpu2", "gpu3"})
        return pynvml.NVML_P2P_STATUS_OK if bridged or capability == 0 else pynvml.NVML_P2P_STATUS_NOT_SUPPORTED

    found = between(4, {0, 1, 2, 3}, nvmlDeviceGetP2PStatus=answer)
    assert {(link.first, link.second) for link in found if link.path == "nvlink"} == {(0, 1), (2, 3)}
    assert {link.path for link in found} == {"nvlink", "system"}


def test_a_card_without_a_link_is_on_nvlink_with_nobody() -> None:
    assert [link.path for link in between(3, {0, 1})] == ["nvlink", "system", "system"]


def test_a_link_that_is_up_and_leads_nobody_knows_where_is_no_known_way() -> None:
    (link,) = between(2, {0, 1}, nvmlDeviceGetP2PStatus=status(0, pynvml.NVML_P2P_STATUS_UNKNOWN))
    assert link == Link(first=0, second=1, path=None, peer=True)


def test_a_pair_of_which_nothing_can_be_told_is_left_out() -> None:
    silent = {"nvmlDeviceGetP2PStatus": NOT_SUPPORTED, "nvmlDeviceGetTopologyCommonAncestor": NOT_SUPPORTED}
    assert between(2, set(), silent) == []
    (link,) = between(2, set(), {"nvmlDeviceGetP2PStatus": NOT_SUPPORTED})
    assert link == Link(first=0, second=1, path="system", peer=None)
