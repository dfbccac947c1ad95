"""Ways between GPUs and to them."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.checks import Context, links
from deploy.hardware import GpuReading, Link
from tests.deploy.checks.contexts import box, context, h100, model, plan


def two(peer: bool | None, *, gpus: int = 2, third: bool | None = None) -> Context:
    """A model on the first ``gpus`` of three GPUs, of which 0 and 1 are ``peer``, and 1 and 2 ``third``."""
    ways = (Link(first=0, second=1, path="system", peer=peer), Link(first=1, second=2, peer=third))
    hardware = box(gpus=tuple(map(h100, range(3))), links=ways)
    return context(hardware=hardware, plan=plan(model(engine="vllm", device="gpu", gpus=gpus)))


@pytest.mark.parametrize(
    ("most", "now", "status"), [(16, 16, "ok"), (16, 8, "warn"), (8, 8, "ok"), (None, 8, "skip"), (16, None, "skip")]
)
def test_pcie_lanes(most: int | None, now: int | None, status: str) -> None:
    card = h100(pci="0000:17:00.0", pcie_width=most)
    found = context(hardware=box(gpus=(card,), readings=(GpuReading(index=0, pcie_width=now),)))
    verdict = links.pcie(found)
    assert verdict.status == status
    if status == "warn":
        assert "uses 8 of 16 PCIe lanes" in verdict.seen
        assert (verdict.hint or "").startswith("sudo lspci -vv -s 0000:17:00.0 ")


def test_a_low_generation_alone_says_nothing_of_an_idle_gpu() -> None:
    card = h100(pcie_width=16, pcie_generation=5)
    idle = GpuReading(index=0, pcie_width=16, pcie_generation=1)
    verdict = links.pcie(context(hardware=box(gpus=(card,), readings=(idle,))))
    assert verdict.status == "ok"
    assert "idle" in verdict.seen
    assert links.pcie(context()).status == "skip"


def test_gpus_that_share_a_model_without_peer_access() -> None:
    verdict = links.peers(two(False))
    assert verdict.status == "warn"
    assert verdict.seen.startswith("chat: GPUs 0-1 cannot read each other's memory")
    assert (verdict.hint or "").startswith("nvidia-smi topo -p2p r")


def test_peer_access_matters_between_gpus_of_one_model_only() -> None:
    assert links.peers(two(True, third=False)).status == "ok"
    assert links.peers(two(None)).status == "ok", "unknown is no alarm"
    assert links.peers(two(False, gpus=1)).status == "skip"
    assert links.peers(context()).status == "skip"


def test_shared_memory_matters_to_a_model_on_several_gpus_only(tmp_path: Path) -> None:
    assert links.shared_memory(two(True, gpus=1)).status == "skip"
    assert links.shared_memory(two(True), tmp_path).status == "ok"
    verdict = links.shared_memory(two(True), Path("/proc"))
    assert (verdict.status, verdict.seen) == ("warn", "0 B free in `/proc`, engines on several GPUs need 1.1 GB")
    assert (verdict.hint or "").startswith("sudo mount -o remount,size=8G /proc")
