"""The CPU, from small trees of /proc and /sys. The texts are those of real kernels."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from deploy.hardware import Cpu, processor
from tests.deploy.hardware.stub import tree

X86 = """\
processor\t: 0
model name\t: Intel(R) Xeon(R) Platinum 8462Y+
flags\t\t: fpu sse4_2 avx avx2 fma bmi2 f16c avx512f avx512_bf16 amx_bf16 amx_tile amx_int8 hypervisor

processor\t: 1
model name\t: another
flags\t\t: fpu
"""
ARM = """\
processor\t: 0
BogoMIPS\t: 2100.00
Features\t: fp asimd asimddp i8mm bf16 sve sve2
CPU implementer\t: {maker}
CPU part\t: {part}
"""
TOPOLOGY = "sys/devices/system/cpu/cpu{}/topology/{}"


def cpu(root: Path, cpuinfo: str = "") -> Cpu:
    return processor.cpu(tree(root, {"proc/cpuinfo": cpuinfo}), None)


def cores(root: Path, siblings: dict[int, str], sockets: dict[int, str], name: str = "core_cpus_list") -> Path:
    files = {TOPOLOGY.format(number, name): text for number, text in siblings.items()}
    return tree(root, files | {TOPOLOGY.format(number, "physical_package_id"): at for number, at in sockets.items()})


def test_of_x86_flags_the_deciding_ones_and_the_model_of_the_first_processor(tmp_path: Path) -> None:
    found = cpu(tmp_path, X86)
    assert found.model == "Intel(R) Xeon(R) Platinum 8462Y+"
    assert found.isa == (
        *("amx_bf16", "amx_int8", "amx_tile", "avx", "avx2", "avx512_bf16", "avx512f"),
        *("bmi2", "f16c", "fma", "sse4_2"),
    )


@pytest.mark.parametrize(
    ("maker", "part", "model"),
    [
        ("0x41", "0xd40", "ARM Neoverse-V1"),
        ("0x41", "0xd4f", "ARM Neoverse-V2"),
        ("0x41", "0xfff", "ARM, implementer 0x41 part 0xfff"),
        ("0xc0", "0xd40", "ARM, implementer 0xc0 part 0xd40"),
    ],
)
def test_arm_tells_its_core_by_numbers(tmp_path: Path, maker: str, part: str, model: str) -> None:
    found = cpu(tmp_path, ARM.format(maker=maker, part=part))
    assert found.model == model
    assert found.isa == ("asimd", "asimddp", "bf16", "i8mm", "sve", "sve2")


def test_two_threads_of_one_core_are_one_core(tmp_path: Path) -> None:
    siblings = {0: "0,4", 1: "1,5", 2: "2,6", 3: "3,7", 4: "0,4", 5: "1,5", 6: "2,6", 7: "3,7"}
    root = cores(tmp_path, siblings, {number: str(number % 4 // 2) for number in range(8)})
    assert processor.topology(root, range(8)) == (4, 2)
    assert processor.topology(root, (0, 4)) == (1, 1), "a container that is given both threads of one core"
    assert processor.topology(root, (0, 2)) == (2, 2)


def test_kernels_before_5_3_have_another_name_for_it(tmp_path: Path) -> None:
    root = cores(tmp_path, {0: "0-1", 1: "0-1"}, {0: "0", 1: "0"}, "thread_siblings_list")
    assert processor.topology(root, (0, 1)) == (1, 1)


def test_a_topology_that_is_not_told_is_unknown(tmp_path: Path) -> None:
    assert processor.topology(tmp_path, (0, 1)) == (None, None)
    assert processor.topology(cores(tmp_path, {0: "0", 1: "1"}, {0: "-1", 1: "-1"}), (0, 1)) == (2, None)


def test_only_what_this_process_may_run_on_counts(tmp_path: Path) -> None:
    allowed = os.sched_getaffinity(0)
    everyone = dict.fromkeys(range(max(allowed) + 9), "0")
    one = ",".join(map(str, sorted(allowed)))
    siblings = {number: one if number in allowed else str(number) for number in everyone}
    found = cpu(cores(tmp_path, siblings, everyone))
    assert (found.physical_cores, found.affinity_cores, found.sockets) == (1, len(allowed), 1)


@pytest.mark.parametrize(("text", "count"), [("0", 1), ("0-1", 2), ("0-3,8,10-11", 7), ("", None)])
def test_numa_nodes_that_have_a_cpu(tmp_path: Path, text: str, count: int | None) -> None:
    tree(tmp_path, {"sys/devices/system/node/has_cpu": text})
    assert cpu(tmp_path).numa_nodes == count


def test_what_cannot_be_read_is_unknown(tmp_path: Path) -> None:
    found = processor.cpu(tmp_path, None)
    assert (found.model, found.isa, found.numa_nodes, found.sockets, found.quota_cores) == (None, (), None, None, None)
    assert found.physical_cores == processor.psutil.cpu_count(logical=False)


def test_there_are_as_many_logical_cores_as_may_be_run_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: 0)
    found = cpu(tmp_path)
    assert found.logical_cores == found.affinity_cores == len(os.sched_getaffinity(0))
