"""What is derived from the facts of a box, and that every recorded box can be read and says what it is for."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from deploy.hardware import Cpu, Gpu, GpuReading, Hardware, Memory, Readings, detection, gpus

RECORDED = Path(__file__).parents[2] / "fixtures" / "hardware"
NAMES = {
    *("laptop-8gb", "vm-2core-24gb", "container-1.5cpu-4gb", "server-64core-amx", "arm-server"),
    *("rtx3090", "rtx4090", "rtx4090-x2-no-p2p", "t4", "l40s-x4", "a100-40-x4", "h100", "h100-x8", "b200-x8"),
    *("h200-30gb-used", "mig-slice", "old-driver", "nvml-failing", "amd-only"),
}
MIB = 1 << 20


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


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_recorded_box_says_where_it_comes_from_and_nothing_personal(name: str) -> None:
    found = recorded(name)
    assert found.note is not None
    assert found.note.startswith(("recorded", "composed: "))
    assert all(gpu.uuid is None for gpu in found.gpus)


def test_the_list_of_recorded_boxes_is_whole() -> None:
    assert {path.stem for path in RECORDED.glob("*.json")} == NAMES


@pytest.mark.parametrize(
    ("name", "count", "each_mib", "generation"),
    [
        ("t4", 1, 15360, "turing"),
        ("rtx3090", 1, 24576, "ampere"),
        ("a100-40-x4", 4, 40960, "ampere"),
        ("old-driver", 1, 23028, "ampere"),
        ("rtx4090", 1, 24564, "ada"),
        ("rtx4090-x2-no-p2p", 2, 24564, "ada"),
        ("l40s-x4", 4, 46068, "ada"),
        ("h100", 1, 81559, "hopper"),
        ("h100-x8", 8, 81559, "hopper"),
        ("h200-30gb-used", 1, 143771, "hopper"),
        ("mig-slice", 2, 40448, "hopper"),
        ("b200-x8", 8, 183359, "blackwell"),
    ],
)
def test_the_devices_that_an_engine_can_be_given(name: str, count: int, each_mib: int, generation: str) -> None:
    found = recorded(name)
    assert [gpu.memory_total_bytes for gpu in found.usable_gpus] == [each_mib * MIB] * count
    assert {gpu.generation for gpu in found.usable_gpus} == {generation}
    for gpu in found.usable_gpus:
        row = gpus.find(gpu.name)
        assert (row is None) is (gpu.slice_of is not None)
        assert row is None or row.compute_capability == gpu.compute_capability


@pytest.mark.parametrize(
    ("name", "paths", "peer"),
    [
        ("rtx4090-x2-no-p2p", {"node"}, {False}),
        ("l40s-x4", {"node", "system"}, {True}),
        ("a100-40-x4", {"nvlink"}, {True}),
        ("h100-x8", {"nvlink"}, {True}),
        ("b200-x8", {"nvlink"}, {True}),
    ],
)
def test_boxes_of_several_gpus_tell_the_way_of_every_pair(name: str, paths: set[str], peer: set[bool]) -> None:
    found = recorded(name)
    count = len(found.gpus)
    assert len(found.links) == count * (count - 1) // 2
    assert ({link.path for link in found.links}, {link.peer for link in found.links}) == (paths, peer)


@pytest.mark.parametrize("name", ["laptop-8gb", "vm-2core-24gb", "server-64core-amx", "arm-server", "amd-only"])
def test_boxes_that_no_gpu_engine_can_use(name: str) -> None:
    found = recorded(name)
    assert (found.usable_gpus, found.gpu_error) == ((), None)


def test_boxes_are_what_their_names_say() -> None:
    assert recorded("amd-only").gpus[0].name == "AMD Instinct MI300X"
    assert recorded("nvml-failing").gpu_error
    assert (recorded("old-driver").cuda_major, recorded("old-driver").cuda_minor) == (12, 4)
    assert {"amx_bf16", "amx_int8", "avx512_bf16"} <= set(recorded("server-64core-amx").cpu.isa)
    assert {"asimd", "sve"} <= set(recorded("arm-server").cpu.isa)
    assert recorded("arm-server").platform == "linux-aarch64"
    split, first, second = recorded("mig-slice").gpus
    assert (split.mig, first.slice_of, second.slice_of) == (True, split.index, split.index)


def test_of_the_h200_30_gb_are_held_by_another_process() -> None:
    found = recorded("h200-30gb-used")
    (gpu,) = found.gpus
    (process,) = found.reading(gpu).processes
    assert process.memory_bytes is not None
    assert 29.9e9 < process.memory_bytes < 30.1e9
    free, total = found.reading(gpu).memory_free_bytes, gpu.memory_total_bytes
    assert free is not None
    assert total is not None
    assert total - free - process.memory_bytes == 701 * MIB, "what the driver keeps, and 1 MiB of its own"


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
    ("memory", "now", "whole", "free"),
    [
        ((None, None), (None, None), None, None),
        ((100, None), (60, None), 100, 60),
        ((100, 40), (60, 10), 40, 30),
        ((100, 40), (20, 10), 40, 20),
        ((100, 40), (60, None), 40, 40),
        ((100, 500), (60, 0), 100, 60),
        ((None, 40), (None, None), 40, 40),
    ],
)
def test_memory_is_what_box_and_control_group_both_leave(
    memory: tuple[int | None, int | None], now: tuple[int | None, int | None], whole: int | None, free: int | None
) -> None:
    found = box(
        memory=Memory(total_bytes=memory[0], limit_bytes=memory[1]),
        now=Readings(memory_available_bytes=now[0], limit_used_bytes=now[1]),
    )
    assert (found.memory_total_bytes, found.memory_free_bytes) == (whole, free)


def test_the_container_can_use_one_core_and_less_than_its_4_gib() -> None:
    container = recorded("container-1.5cpu-4gb")
    assert container.cores == 1
    assert container.memory_total_bytes == 4 << 30
    assert container.memory_free_bytes == (4 << 30) - (300 << 20)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_the_fingerprint_ignores_what_comes_and_goes(name: str) -> None:
    found = recorded(name)
    assert msgspec.structs.replace(found, now=Readings(), note=None).fingerprint == found.fingerprint


def test_the_fingerprint_tells_boxes_apart() -> None:
    boxes = [recorded(name) for name in NAMES]
    assert len({found.fingerprint for found in boxes}) == len(boxes)


@pytest.mark.parametrize(
    ("part", "fact"),
    [
        ("cpu", {"affinity_cores": 2}),
        ("cpu", {"quota_cores": 4.0}),
        ("cpu", {"isa": ("avx2",)}),
        ("memory", {"limit_bytes": 1 << 30}),
        ("memory", {"total_bytes": 1 << 30}),
    ],
)
def test_the_fingerprint_follows_the_facts(part: str, fact: dict[str, object]) -> None:
    first = recorded("h100")
    other = msgspec.structs.replace(first, **{part: msgspec.structs.replace(getattr(first, part), **fact)})
    assert other.fingerprint != first.fingerprint


def test_the_fingerprint_follows_the_gpus() -> None:
    first = recorded("h100")
    (gpu,) = first.gpus
    smaller = msgspec.structs.replace(gpu, memory_total_bytes=1)
    assert len({msgspec.structs.replace(first, gpus=them).fingerprint for them in ((gpu,), (smaller,), ())}) == 3


def test_a_device_without_a_reading_is_unknown() -> None:
    assert box(gpus=(Gpu(index=3),)).reading(Gpu(index=3)) == GpuReading(index=3)


def test_facts_cannot_be_changed_afterwards() -> None:
    gpu = Gpu(index=0)
    with pytest.raises(AttributeError):
        gpu.index = 1  # type: ignore[misc]
