"""What is derived from the facts of a box, and that every recorded box can be read."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from deploy import detection
from deploy.hardware import Cpu, Gpu, GpuProcess, Hardware, Memory

RECORDED = Path(__file__).parents[1] / "fixtures" / "hardware"
NAMES = {
    *("laptop-8gb", "vm-2core-24gb", "container-1.5cpu-4gb", "server-64core-amx", "rtx3090", "rtx4090", "h100"),
    *("h200-30gb-used", "t4", "old-driver", "nvml-failing"),
}


def box(cpu: Cpu | None = None, memory: Memory | None = None, **facts: object) -> Hardware:
    whole = {
        "platform": "linux-x86_64",
        "cpu": cpu or Cpu(architecture="x86_64"),
        "memory": memory or Memory(),
        **facts,
    }
    return Hardware(**whole)  # type: ignore[arg-type]


def recorded(name: str) -> Hardware:
    return detection.load(RECORDED / f"{name}.json")


def test_every_recorded_box_says_where_it_comes_from() -> None:
    assert {path.stem for path in RECORDED.glob("*.json")} == NAMES
    for name in NAMES:
        note = recorded(name).note
        assert note is not None
        assert note.startswith(("recorded", "composed: "))


@pytest.mark.parametrize(
    ("physical", "affinity", "quota", "cores"),
    [
        (4, 8, None, 4),
        (64, 3, None, 3),
        (64, 128, 1.5, 1),
        (64, 128, 0.5, 1),
        (64, 128, 7.0, 7),
        (None, 6, None, 6),
        (None, None, 2.9, 2),
        (None, None, None, 1),
    ],
)
def test_usable_cores_are_the_least_of_all_counts(
    physical: int | None, affinity: int | None, quota: float | None, cores: int
) -> None:
    cpu = Cpu(architecture="x86_64", physical_cores=physical, affinity_cores=affinity, quota_cores=quota)
    assert box(cpu).cores == cores


@pytest.mark.parametrize(
    ("memory", "total", "free"),
    [
        (Memory(), None, None),
        (Memory(total_bytes=100, available_bytes=60), 100, 60),
        (Memory(total_bytes=100, available_bytes=60, limit_bytes=40, limit_used_bytes=10), 40, 30),
        (Memory(total_bytes=100, available_bytes=20, limit_bytes=40, limit_used_bytes=10), 40, 20),
        (Memory(total_bytes=100, available_bytes=60, limit_bytes=40), 40, 40),
        (Memory(total_bytes=100, available_bytes=60, limit_bytes=500, limit_used_bytes=0), 100, 60),
        (Memory(limit_bytes=40), 40, 40),
    ],
)
def test_memory_is_what_box_and_control_group_both_leave(memory: Memory, total: int | None, free: int | None) -> None:
    found = box(memory=memory)
    assert (found.memory_total_bytes, found.memory_free_bytes) == (total, free)


def test_the_container_can_use_one_core_and_less_than_its_4_gib() -> None:
    container = recorded("container-1.5cpu-4gb")
    assert container.cores == 1
    assert container.memory_total_bytes == 4 << 30
    assert container.memory_free_bytes == (4 << 30) - (300 << 20)


def test_the_fingerprint_ignores_what_comes_and_goes() -> None:
    h200 = recorded("h200-30gb-used")
    (gpu,) = h200.gpus
    idle = msgspec.structs.replace(gpu, memory_free_bytes=gpu.memory_total_bytes, processes=())
    memory = msgspec.structs.replace(h200.memory, available_bytes=1, limit_used_bytes=1)
    later = msgspec.structs.replace(h200, gpus=(idle,), memory=memory, disk_free_bytes=1, note=None)
    assert later.fingerprint == h200.fingerprint


def test_the_fingerprint_tells_boxes_apart() -> None:
    boxes = [recorded(name) for name in NAMES]
    assert len({found.fingerprint for found in boxes}) == len(boxes)
    first = recorded("h100")
    fewer = msgspec.structs.replace(first, cpu=msgspec.structs.replace(first.cpu, affinity_cores=2))
    assert fewer.fingerprint != first.fingerprint


def test_facts_cannot_be_changed_afterwards() -> None:
    gpu = Gpu(index=0, processes=(GpuProcess(pid=1),))
    with pytest.raises(AttributeError):
        gpu.index = 1  # type: ignore[misc]
