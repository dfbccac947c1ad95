from __future__ import annotations

from pathlib import Path

import pytest

from deploy.hardware.bandwidth import measure

MIB = 1 << 20


def cache(root: Path, cpu: int, index: int, *, level: int, shared: str, size: str) -> None:
    folder = root / f"sys/devices/system/cpu/cpu{cpu}/cache/index{index}"
    folder.mkdir(parents=True)
    for name, value in {"level": str(level), "shared_cpu_list": shared, "size": size}.items():
        (folder / name).write_text(f"{value}\n")


def limit(root: Path, most: int, used: int) -> None:
    """A cgroup v2 with a limit on memory."""
    group = root / "sys/fs/cgroup"
    group.mkdir(parents=True)
    proc = root / "proc/self"
    proc.mkdir(parents=True)
    (proc / "cgroup").write_text("0::/\n")
    (proc / "mountinfo").write_text("30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
    (group / "memory.max").write_text(f"{most}\n")
    (group / "memory.current").write_text(f"{used}\n")
    (group / "memory.stat").write_text("inactive_file 0\n")


@pytest.mark.parametrize("threads", [1, 2])
def test_it_is_what_a_box_can_read(threads: int, tmp_path: Path) -> None:
    """Any box reads more than a disk does, and none more than 10 TB/s."""
    rate = measure(threads, seconds=0.01, root=tmp_path)
    assert rate
    assert 1e8 < rate < 1e13


def test_a_cache_that_two_cores_share_counts_once(tmp_path: Path) -> None:
    for cpu in (0, 1):
        cache(tmp_path, cpu, 0, level=1, shared=str(cpu), size="32K")
        cache(tmp_path, cpu, 3, level=3, shared="0-1", size="131072K")
    assert measure(1, seconds=0.01, root=tmp_path) is not None


def test_nothing_is_measured_where_the_caches_hold_half_of_it(tmp_path: Path) -> None:
    for cpu in (0, 1):
        cache(tmp_path, cpu, 3, level=3, shared=str(cpu), size="2048M")
    assert measure(1, seconds=0.01, root=tmp_path) is None


def test_large_caches_get_larger_buffers_and_need_more_free_memory(tmp_path: Path) -> None:
    cache(tmp_path, 0, 3, level=3, shared="0", size="160M")
    limit(tmp_path, 1200 * MIB, 0)
    assert measure(1, seconds=0.01, root=tmp_path) is None
    (tmp_path / "sys/fs/cgroup/memory.max").write_text(f"{1400 * MIB}\n")
    assert measure(1, seconds=0.01, root=tmp_path) is not None


def test_nothing_is_measured_where_memory_is_short(tmp_path: Path) -> None:
    limit(tmp_path, 1024 * MIB, 600 * MIB)
    assert measure(1, seconds=0.01, root=tmp_path) is None


def test_a_limit_that_leaves_enough_is_none(tmp_path: Path) -> None:
    limit(tmp_path, 1024 * MIB, 300 * MIB)
    assert measure(1, seconds=0.01, root=tmp_path) is not None
