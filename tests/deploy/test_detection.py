"""Detection on this box and on small trees of /proc and /sys; loading of recorded boxes."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import psutil
import pytest

from deploy import detection
from deploy.errors import ConfigError
from deploy.hardware import Hardware

X86 = """\
processor\t: 0
model name\t: Intel(R) Xeon(R) Platinum 8462Y+
flags\t\t: fpu sse4_2 avx avx2 fma bmi2 f16c avx512f avx512_bf16 amx_bf16 amx_tile amx_int8 hypervisor

processor\t: 1
model name\t: another
flags\t\t: fpu
"""
ARM = "processor\t: 0\nBogoMIPS\t: 2000.00\nFeatures\t: fp asimd asimddp i8mm bf16 sve sve2\nCPU part\t: 0xd4f\n\n"


def box(fact: str) -> str:
    return f'{{"platform": "x", "cpu": {{"architecture": "x"}}, "memory": {{}}, {fact}}}'


def detect(root: Path) -> Hardware:
    return detection.detect(root, root=root)


def test_this_box(tmp_path: Path) -> None:
    found = detection.detect(tmp_path)
    assert found.platform == f"linux-{os.uname().machine}"
    assert found.cpu.affinity_cores == len(os.sched_getaffinity(0))
    assert found.cpu.logical_cores == os.cpu_count()
    assert found.memory.total_bytes == psutil.virtual_memory().total
    assert found.memory.available_bytes
    assert 0 < found.memory.available_bytes < found.memory.total_bytes
    assert found.disk_free_bytes
    assert found.cpu.isa
    assert found.note is None


def test_the_fingerprint_of_this_box_does_not_move(tmp_path: Path) -> None:
    first = detection.detect(tmp_path)
    ballast = bytearray(64 << 20)
    second = detection.detect(tmp_path)
    assert first.fingerprint == second.fingerprint, len(ballast)


def test_of_x86_flags_the_deciding_ones_and_the_model_of_the_first_processor(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").write_text(X86)
    cpu = detect(tmp_path).cpu
    assert cpu.model == "Intel(R) Xeon(R) Platinum 8462Y+"
    assert cpu.isa == (
        *("amx_bf16", "amx_int8", "amx_tile", "avx", "avx2", "avx512_bf16", "avx512f"),
        *("bmi2", "f16c", "fma", "sse4_2"),
    )


def test_arm_names_features_and_no_model(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").write_text(ARM)
    cpu = detect(tmp_path).cpu
    assert (cpu.model, cpu.isa) == (None, ("asimd", "asimddp", "bf16", "i8mm", "sve", "sve2"))


def test_what_cannot_be_read_is_unknown(tmp_path: Path) -> None:
    found = detect(tmp_path)
    assert (found.cpu.model, found.cpu.isa, found.cpu.numa_nodes, found.cpu.quota_cores) == (None, (), None, None)
    assert (found.memory.limit_bytes, found.memory.limit_used_bytes) == (None, None)
    assert (found.gpus, found.gpu_error, found.driver, found.cuda_major) == ((), None, None, None)


@pytest.mark.parametrize(("text", "count"), [("0\n", 1), ("0-1\n", 2), ("0-3,8,10-11\n", 7), ("\n", None)])
def test_numa_nodes_that_have_a_cpu(tmp_path: Path, text: str, count: int | None) -> None:
    (tmp_path / "sys/devices/system/node").mkdir(parents=True)
    (tmp_path / "sys/devices/system/node/has_cpu").write_text(text)
    assert detect(tmp_path).cpu.numa_nodes == count


def test_control_group_limits_arrive(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/\n")
    (tmp_path / "proc/self/mountinfo").write_text("31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
    (tmp_path / "sys/fs/cgroup/cpu.max").write_text("50000 100000\n")
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("1000000\n")
    (tmp_path / "sys/fs/cgroup/memory.current").write_text("400000\n")
    found = detect(tmp_path)
    assert (found.cpu.quota_cores, found.cores) == (0.5, 1)
    assert (found.memory_total_bytes, found.memory_free_bytes) == (1_000_000, 600_000)


def test_a_gpu_that_cannot_be_read_arrives_as_an_error(tmp_path: Path) -> None:
    device = tmp_path / "sys/bus/pci/devices/0000:01:00.0"
    device.mkdir(parents=True)
    (device / "vendor").write_text("0x10de\n")
    (device / "class").write_text("0x030200\n")
    found = detect(tmp_path)
    assert found.gpus or found.gpu_error


def test_the_disk_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    found = detection.detect(tmp_path / "not" / "yet").disk_free_bytes
    assert found is not None
    assert found > 0


def test_a_recorded_box_comes_back_as_it_was(tmp_path: Path) -> None:
    here = detection.detect(tmp_path)
    path = tmp_path / "box.json"
    path.write_bytes(msgspec.json.encode(here))
    assert detection.load(path) == here


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "truncated"),
        ("[]", "Expected `object`, got `array`"),
        ("{", "truncated"),
        ('{"cpu": {"architecture": "x86_64"}, "memory": {}}', "missing required field `platform`"),
        (box('"ram": 1'), "unknown field `ram`"),
        (box('"gpus": [{"index": "0"}]'), "$.gpus[0].index"),
        (box('"disk_free_bytes": -1'), "`$.disk_free_bytes` must not be negative"),
        (box('"gpus": [{"index": 0, "memory_free_bytes": -5}]'), "`$.gpus[0].memory_free_bytes` must not be negative"),
    ],
)
def test_a_wrong_record_is_named_with_field_and_rule(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "box.json"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        detection.load(path)
    assert says in caught.value.message
    assert caught.value.where == str(path)
    assert caught.value.hint is not None
    assert "hardware --json" in caught.value.hint


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "box.json"
    path.write_bytes(b'{"platform": "\xff"}')
    with pytest.raises(ConfigError):
        detection.load(path)


def test_a_record_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        detection.load(tmp_path / "box.json")
    with pytest.raises(ConfigError, match="directory"):
        detection.load(tmp_path)
