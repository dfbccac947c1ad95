from __future__ import annotations

import itertools

import msgspec
import pytest

from deploy.hardware import Cpu, Gpu, Hardware, Memory
from deploy.lockfile import Facts, Origin, Variant
from deploy.planning import speed

GB = 10**9


def box(*gpus: Gpu, bandwidth: float | None = None) -> Hardware:
    return Hardware(
        platform="linux-x86_64",
        cpu=Cpu(architecture="x86_64"),
        memory=Memory(bandwidth_bytes_per_s=bandwidth),
        gpus=gpus,
    )


def weights(size: int, parameters: int | None = None, active: int | None = None) -> Variant:
    facts = Facts(parameters=parameters, active_parameters=active)
    origin = Origin(kind="path")
    return Variant(format="gguf", precision="Q4_K_M", size=size, tree="", origin=origin, facts=facts, files=())


def on_cpu(variant: Variant, threads: int, hardware: Hardware) -> float:
    found = speed.predicted(variant, threads, hardware, "cpu", 0)
    assert found
    assert found.provenance == "predicted"
    return found.tokens_per_s


def test_few_threads_are_held_up_by_unpacking_and_many_by_the_memory() -> None:
    hardware = box(bandwidth=50e9)
    assert on_cpu(weights(GB), 2, hardware) == 2 * on_cpu(weights(GB), 1, hardware)
    assert on_cpu(weights(GB), 8, hardware) == on_cpu(weights(GB), 64, hardware) == pytest.approx(40)


def test_the_real_one_on_the_box_it_was_measured_on() -> None:
    """0.5B in 491 MB: 31.8 tokens/s with one thread, 52.3 with two, 43 GB/s read by numpy (2026-11)."""
    hardware = box(bandwidth=43e9)
    assert on_cpu(weights(491_400_064), 1, hardware) == pytest.approx(31.8, rel=0.25)
    assert on_cpu(weights(491_400_064), 2, hardware) == pytest.approx(52.3, rel=0.1)


def test_what_is_assumed_is_said() -> None:
    assumed = speed.predicted(weights(GB), 2, box(), "cpu", 0)
    assert assumed
    assert assumed.tokens_per_s == pytest.approx(16)
    assert "assumed" in assumed.source
    measured = speed.predicted(weights(GB), 2, box(bandwidth=1e10), "cpu", 0)
    assert measured
    assert "assumed" not in measured.source


@pytest.mark.parametrize("bandwidth", [None, 50e9])
def test_of_experts_only_the_active_ones_are_read(bandwidth: float | None) -> None:
    dense, sparse = weights(18 * GB, 30 * GB), weights(18 * GB, 30 * GB, 3 * GB)
    hardware = box(bandwidth=bandwidth)
    assert on_cpu(sparse, 8, hardware) == pytest.approx(10 * on_cpu(dense, 8, hardware))


@pytest.mark.parametrize("bandwidth", [None, 10e9, 50e9, 400e9])
def test_more_bytes_are_never_faster_and_more_threads_never_slower(bandwidth: float | None) -> None:
    hardware = box(bandwidth=bandwidth)
    by_size = [on_cpu(weights(size), 4, hardware) for size in range(GB, 20 * GB, GB)]
    assert all(smaller > larger for smaller, larger in itertools.pairwise(by_size))
    by_threads = [on_cpu(weights(GB), threads, hardware) for threads in range(1, 33)]
    assert all(fewer <= more for fewer, more in itertools.pairwise(by_threads))


def test_faster_memory_and_more_of_it_make_a_gpu_faster() -> None:
    kinds = {name: Gpu(index=0, name=name) for name in ("NVIDIA H100 80GB HBM3", "NVIDIA H200")}
    slow, fast = (speed.predicted(weights(16 * GB), 1, box(kind), "gpu", 1) for kind in kinds.values())
    assert slow
    assert fast
    assert slow.tokens_per_s < fast.tokens_per_s
    # 3.35 TB/s at most: no prediction is above what the data sheet allows.
    assert slow.tokens_per_s < 3.35e12 / (16 * GB)
    second = msgspec.structs.replace(kinds["NVIDIA H200"], index=1)
    two = speed.predicted(weights(16 * GB), 1, box(kinds["NVIDIA H200"], second), "gpu", 2)
    assert two
    assert fast.tokens_per_s < two.tokens_per_s < 2 * fast.tokens_per_s
    tiny = speed.predicted(weights(GB // 100), 1, box(kinds["NVIDIA H200"]), "gpu", 1)
    assert tiny
    assert tiny.tokens_per_s < 500


@pytest.mark.parametrize(
    ("variant", "hardware", "device"),
    [
        (weights(GB), box(Gpu(index=0, name="NVIDIA Prototype")), "gpu"),
        (weights(GB), box(Gpu(index=0)), "gpu"),
        (weights(GB), box(), "gpu"),
        (weights(0), box(), "cpu"),
    ],
)
def test_what_nothing_is_known_of_has_no_speed(variant, hardware, device) -> None:
    assert speed.predicted(variant, 2, hardware, device, 1) is None
