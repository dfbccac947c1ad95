"""Control groups, read from small trees of /proc and /sys. The texts are those of real kernels."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.hardware.cgroup import Limits, limits

GIB = 1 << 30
UNLIMITED_V1 = "9223372036854771712\n"
V2 = "31 23 0:28 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n"
    "32 31 0:29 {top} /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
    "35 31 0:32 {top} /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
)
HYBRID = V1.format(top="/") + "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def unified(root: Path, groups: dict[str, str], own: str = "/") -> Path:
    """A version 2 tree; ``groups`` are files under /sys/fs/cgroup."""
    files = {f"sys/fs/cgroup/{name}": text for name, text in groups.items()}
    return tree(root, {"proc/self/cgroup": f"0::{own}\n", "proc/self/mountinfo": V2, **files})


def test_a_box_without_control_groups_has_no_limits(tmp_path: Path) -> None:
    assert limits(tmp_path) == Limits()


def test_the_root_of_version_2_has_no_limit_files(tmp_path: Path) -> None:
    assert limits(unified(tmp_path, {"cgroup.procs": "1\n", "memory.stat": "inactive_file 5\n"})) == Limits()


def test_version_2_in_a_container_of_its_own_namespace(tmp_path: Path) -> None:
    groups = {
        "cpu.max": "150000 100000\n",
        "memory.max": f"{4 * GIB}\n",
        "memory.current": f"{GIB}\n",
        "memory.stat": f"anon 1\nfile 2\ninactive_file {GIB // 4}\nactive_file 7\n",
    }
    assert limits(unified(tmp_path, groups)) == Limits(
        cpu_cores=1.5, memory_bytes=4 * GIB, memory_used_bytes=GIB - GIB // 4
    )


def test_max_means_no_limit(tmp_path: Path) -> None:
    groups = {"cpu.max": "max 100000\n", "memory.max": "max\n", "memory.high": "max\n", "memory.current": "5\n"}
    assert limits(unified(tmp_path, groups)) == Limits()


def test_memory_high_stalls_and_so_it_limits(tmp_path: Path) -> None:
    groups = {"memory.max": f"{4 * GIB}\n", "memory.high": f"{3 * GIB}\n", "memory.current": "0\n"}
    assert limits(unified(tmp_path, groups)).memory_bytes == 3 * GIB


def test_the_tightest_quota_from_the_own_group_up_to_the_root_counts(tmp_path: Path) -> None:
    groups = {
        "user.slice/cpu.max": "200000 100000\n",
        "user.slice/job.scope/cpu.max": "800000 100000\n",
        "user.slice/job.scope/inner/cpu.max": "max 100000\n",
        "system.slice/cpu.max": "10000 100000\n",
    }
    assert limits(unified(tmp_path, groups, own="/user.slice/job.scope/inner")).cpu_cores == 2.0


def test_a_parent_that_siblings_have_filled_leaves_less_than_the_own_smaller_limit(tmp_path: Path) -> None:
    groups = {
        "pod/memory.max": f"{8 * GIB}\n",
        "pod/memory.current": f"{7 * GIB}\n",
        "pod/ours/memory.max": f"{4 * GIB}\n",
        "pod/ours/memory.current": f"{GIB}\n",
    }
    found = limits(unified(tmp_path, groups, own="/pod/ours"))
    assert found.memory_bytes == 4 * GIB, "of the fixed facts the smallest limit"
    assert found.memory_bytes - (found.memory_used_bytes or 0) == GIB, "and what the parent really leaves"


def test_a_limit_of_unknown_use(tmp_path: Path) -> None:
    assert limits(unified(tmp_path, {"memory.max": "1000\n"})) == Limits(memory_bytes=1000, memory_used_bytes=None)


def test_page_cache_larger_than_the_use_is_not_negative(tmp_path: Path) -> None:
    groups = {"memory.max": "1000\n", "memory.current": "10\n", "memory.stat": "inactive_file 20\n"}
    assert limits(unified(tmp_path, groups)).memory_used_bytes == 0


def test_version_1_with_controllers_mounted_together(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "5:cpu,cpuacct:/job\n4:memory:/job/step\n1:name=systemd:/\n",
            "proc/self/mountinfo": V1.format(top="/"),
            "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": "50000\n",
            "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/memory/job/memory.limit_in_bytes": f"{2 * GIB}\n",
            "sys/fs/cgroup/memory/job/memory.usage_in_bytes": f"{GIB}\n",
            "sys/fs/cgroup/memory/job/memory.stat": f"inactive_file 1\ntotal_inactive_file {GIB // 2}\n",
            "sys/fs/cgroup/memory/job/step/memory.limit_in_bytes": UNLIMITED_V1,
        },
    )
    assert limits(root) == Limits(cpu_cores=0.5, memory_bytes=2 * GIB, memory_used_bytes=GIB // 2)


def test_version_1_says_no_limit_with_minus_one_and_with_a_huge_number(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "5:cpu,cpuacct:/\n4:memory:/\n",
            "proc/self/mountinfo": V1.format(top="/"),
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": UNLIMITED_V1,
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "11382784\n",
        },
    )
    assert limits(root) == Limits()


@pytest.mark.parametrize("own", ["/docker/abc", "/elsewhere", "/../sibling"])
def test_a_container_sees_its_own_group_as_the_root_of_the_mount(tmp_path: Path, own: str) -> None:
    """Docker with version 1: the mount's root is the container's group, whatever the process's path is."""
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": f"4:memory:{own}\n",
            "proc/self/mountinfo": V1.format(top="/docker/abc"),
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "1000\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "10\n",
        },
    )
    assert limits(root) == Limits(memory_bytes=1000, memory_used_bytes=10)


def test_a_group_outside_of_the_namespace_that_is_seen_here(tmp_path: Path) -> None:
    assert limits(unified(tmp_path, {"cpu.max": "100000 100000\n"}, own="/../sibling")).cpu_cores == 1.0


def test_both_versions_side_by_side(tmp_path: Path) -> None:
    """Recorded on a virtual machine: controllers in version 1, an empty version 2 beside them; the limit is added."""
    group = "sys/fs/cgroup/memory/process_api/e86158d5"
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "9:name=systemd:/\n4:memory:/process_api/e86158d5\n3:cpuset:/\n1:cpu:/\n0::/\n",
            "proc/self/mountinfo": HYBRID,
            "sys/fs/cgroup/unified/cgroup.procs": "1\n",
            f"{group}/memory.limit_in_bytes": "5000\n",
            f"{group}/memory.usage_in_bytes": "3000\n",
            f"{group}/memory.stat": "inactive_file 856\ntotal_inactive_file 1000\n",
        },
    )
    assert limits(root) == Limits(memory_bytes=5000, memory_used_bytes=2000)


def test_this_box_can_be_read() -> None:
    found = limits()
    assert found.cpu_cores is None or found.cpu_cores > 0
    assert found.memory_bytes is None or found.memory_bytes > 0
