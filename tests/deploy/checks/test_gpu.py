"""GPUs, on composed boxes: one fact of each is the one that matters."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.checks import Context, Verdict, gpu
from deploy.hardware import Gpu, GpuProcess, GpuReading
from tests.deploy.checks.contexts import CPU_ONLY, GB, box, context, engine, h100

Check = Callable[[Context], Verdict]
CUDA = "torch==2.14.0\nnvidia-cuda-runtime==13.0.96 ; sys_platform == 'linux' \\\n"


def on(*gpus: Gpu, reading: GpuReading = GpuReading(index=0), **parts: object) -> Context:  # noqa: B008 - frozen
    return context(hardware=box(gpus=gpus or (h100(),), readings=(reading,)), **parts)


@pytest.mark.parametrize("check", [gpu.devices, gpu.driver, gpu.memory, gpu.errors, gpu.clocks])
def test_who_has_no_gpu_or_has_accepted_the_cpu_is_not_bothered(check: Check) -> None:
    assert check(context()).status == "skip"
    bad = GpuReading(index=0, memory_free_bytes=0, throttled=("thermal",), uncorrected_errors=9)
    broken = context(hardware=box(gpus=(h100(),), readings=(bad,), gpu_error="broken"), config=CPU_ONLY)
    assert check(broken).status == "skip"


def test_gpus_that_can_be_read_and_those_that_cannot() -> None:
    assert gpu.devices(on()).seen == "GPU 0 (NVIDIA H100 80GB HBM3), capability 9.0"
    verdict = gpu.devices(context(hardware=box(gpu_error="NVML does not start")))
    assert (verdict.status, verdict.seen) == ("fail", "NVML does not start")
    assert verdict.hint is not None
    assert verdict.hint.startswith("nvidia-smi")


def test_gpus_of_other_makers_are_said_to_be_unused() -> None:
    foreign = Gpu(index=1, vendor="amd", name="AMD Instinct MI300X")
    alone = gpu.devices(on(foreign))
    assert alone == ("skip", "no NVIDIA GPU; no engine here uses GPU 1 (AMD Instinct MI300X)", None)
    assert gpu.devices(on(h100(), foreign)).seen.endswith("no engine here uses GPU 1 (AMD Instinct MI300X)")


def test_a_gpu_split_by_mig_is_used_by_its_slices() -> None:
    whole = h100(mig=True)
    verdict = gpu.devices(on(whole))
    assert (verdict.status, verdict.hint is not None and verdict.hint.split("  #")[0]) == (
        "warn",
        "sudo nvidia-smi -i 0 -mig 0",
    )
    part = h100(1, name="NVIDIA H100 MIG 3g.40gb", slice_of=0)
    assert gpu.devices(on(whole, part)).seen == "GPU 1 (NVIDIA H100 MIG 3g.40gb), capability 9.0"


@pytest.mark.parametrize(
    ("cuda", "status", "says"),
    [
        ((13, None), "ok", "runs CUDA up to 13, the engine is built for 13.0"),
        ((14, 1), "ok", "runs CUDA up to 14.1, the engine is built for 13.0"),
        ((12, 4), "fail", "driver 580.95.05 runs CUDA up to 12.4, the engine is built for CUDA 13"),
        ((None, None), "skip", "unknown"),
    ],
)
def test_the_driver_and_the_engines_cuda(
    tmp_path: Path, cuda: tuple[int | None, int | None], status: str, says: str
) -> None:
    engines = (engine(tmp_path), engine(tmp_path, "vllm", "0.33.0", "gpu", CUDA))
    verdict = gpu.driver(context(hardware=box(gpus=(h100(),), cuda=cuda), engines=engines))
    assert verdict.status == status
    assert says in verdict.seen
    assert (verdict.hint is not None and "nvidia-driver-580" in verdict.hint) is (status == "fail")


def test_an_engine_that_does_not_tell_its_cuda_is_not_judged(tmp_path: Path) -> None:
    assert gpu.driver(on(engines=(engine(tmp_path, "vllm", "0.33.0", "gpu"),))).status == "skip"


def free(count: int | None, *processes: GpuProcess) -> GpuReading:
    return GpuReading(index=0, memory_free_bytes=count, processes=processes)


def test_memory_used_by_others_names_them() -> None:
    training = GpuProcess(pid=2**22 + 1, name="train")
    nameless = GpuProcess(pid=2**22 + 2)
    verdict = gpu.memory(on(reading=free(50 * GB, training, nameless)))
    assert verdict.status == "warn"
    assert verdict.seen.endswith(f"30.0 GB of 80.0 GB used by pid {training.pid} (train), pid {nameless.pid}")
    assert verdict.hint is not None
    assert verdict.hint.startswith(f"kill {training.pid} {nameless.pid} ")
    assert gpu.memory(on(reading=free(79 * GB, training))).status == "ok", "a desktop may have a little"


def test_memory_used_by_processes_that_cannot_be_seen() -> None:
    verdict = gpu.memory(on(reading=free(40 * GB)))
    assert verdict.status == "warn"
    assert "40.0 GB of 80.0 GB used by processes that cannot be seen" in verdict.seen


def test_memory_that_our_own_engine_holds_is_in_order() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        held = free(40 * GB, GpuProcess(pid=child.pid))
        assert gpu.memory(on(reading=held, service_pid=child.pid)).status == "ok"
        assert gpu.memory(on(reading=held)).status == "warn"
        child.communicate(b"\n")


def test_memory_that_is_unknown_is_no_alarm() -> None:
    assert gpu.memory(on(reading=free(None))).status == "ok"


def test_uncorrected_errors_fail() -> None:
    verdict = gpu.errors(on(h100(ecc=True), reading=GpuReading(index=0, uncorrected_errors=3)))
    assert verdict.status == "fail"
    assert "3 uncorrected memory error(s)" in verdict.seen
    assert verdict.hint is not None
    assert verdict.hint.startswith("sudo nvidia-smi -i 0 -r")
    assert gpu.errors(on(h100(ecc=True), reading=GpuReading(index=0, uncorrected_errors=0))).status == "ok"
    assert gpu.errors(on()).status == "skip", "unknown is not none"


@pytest.mark.parametrize(
    ("card", "status"), [("NVIDIA A100-SXM4-80GB", "warn"), ("NVIDIA GeForce RTX 4090", "skip"), (None, "skip")]
)
def test_ecc_that_is_off_is_odd_on_a_data_centre_card_only(card: str | None, status: str) -> None:
    verdict = gpu.errors(on(h100(name=card, ecc=False)))
    assert verdict.status == status
    if status == "warn":
        assert (verdict.hint or "").startswith("sudo nvidia-smi -i 0 -e 1")


def test_a_slice_is_not_a_card_of_its_own() -> None:
    whole, part = h100(mig=True, ecc=False), h100(1, slice_of=0, ecc=False)
    assert gpu.errors(on(whole, part)).seen.count("ECC is off") == 1


@pytest.mark.parametrize(
    ("reasons", "command"),
    [
        (("thermal",), "nvidia-smi -q -d TEMPERATURE -i 0"),
        (("power",), "nvidia-smi -q -d POWER -i 0"),
        (("power brake",), "nvidia-smi -q -d PERFORMANCE -i 0"),
        (("sync boost", "hardware thermal"), "nvidia-smi -q -d TEMPERATURE -i 0"),
    ],
)
def test_a_gpu_that_is_held_back_says_why_and_what_to_do(reasons: tuple[str, ...], command: str) -> None:
    reading = GpuReading(index=0, throttled=reasons, temperature_c=91, power_w=349.6)
    verdict = gpu.clocks(on(h100(power_limit_w=350.0), reading=reading))
    assert verdict.status == "warn"
    assert f"{reasons[-1]} (91 °C, 350 W, limit 350 W)" in verdict.seen
    assert [line.split("  #")[0] for line in (verdict.hint or "").splitlines()] == [command]


@pytest.mark.parametrize("reasons", [("power",), ("thermal",)])
def test_a_busy_service_may_reach_the_power_limit_but_not_the_heat(reasons: tuple[str, ...]) -> None:
    verdict = gpu.clocks(on(reading=GpuReading(index=0, throttled=reasons), service_pid=1))
    assert verdict.status == ("ok" if reasons == ("power",) else "warn")


def test_a_gpu_that_runs_free_one_that_follows_another_and_one_that_does_not_tell() -> None:
    assert gpu.clocks(on(reading=GpuReading(index=0, throttled=()))).status == "ok"
    assert gpu.clocks(on(reading=GpuReading(index=0, throttled=("sync boost",)))).status == "ok"
    assert gpu.clocks(on()).status == "skip"


def test_every_gpu_with_a_problem_is_named() -> None:
    readings = tuple(GpuReading(index=index, uncorrected_errors=index) for index in range(3))
    verdict = gpu.errors(context(hardware=box(gpus=tuple(map(h100, range(3))), readings=readings)))
    assert ["GPU 0" in verdict.seen, "GPU 1" in verdict.seen, "GPU 2" in verdict.seen] == [False, True, True]
    assert [line.split(" -r")[0] for line in (verdict.hint or "").splitlines()] == [
        "sudo nvidia-smi -i 1",
        "sudo nvidia-smi -i 2",
    ]
