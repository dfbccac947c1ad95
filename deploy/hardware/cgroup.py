"""Limits of the control groups this process is in: the tightest between its own group and the root counts.

Source: the kernel's admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst, cgroups(7), proc_pid_mountinfo(5).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from deploy.hardware import sysfs

UNLIMITED_BYTES = 1 << 62
"""Version 1 says "no limit" with the largest multiple of the page size below 2**63."""


@dataclass(frozen=True)
class Limits:
    """None: no limit, or not known. ``memory_used_bytes`` is the part of ``memory_bytes`` that cannot be had."""

    cpu_cores: float | None = None
    memory_bytes: int | None = None
    memory_used_bytes: int | None = None


def limits(root: Path = Path("/")) -> Limits:
    """Both versions are read, also side by side. ``root`` holds ``proc`` and what mountinfo names."""
    quotas = [quota for group in _groups(root, "cpu") if (quota := _cpu_cores(group)) is not None]
    memory = [found for group in _groups(root, "memory") if (found := _memory(group)) is not None]
    if not memory:
        return Limits(cpu_cores=min(quotas, default=None))
    limit = min(bytes_ for bytes_, _ in memory)
    # The group with the least left need not be the one with the smallest limit: siblings may have filled a parent.
    left = [bytes_ - used for bytes_, used in memory if used is not None]
    used = max(0, limit - min(left)) if left else None
    return Limits(cpu_cores=min(quotas, default=None), memory_bytes=limit, memory_used_bytes=used)


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Folders of our own group and of every group above it that is mounted here."""
    own = _memberships(root)
    for names, top, point in _mounts(root):
        for name in names & own.keys() & {controller, ""}:
            inside = _relative(own[name], top)
            for level in (inside, *inside.parents):
                yield root / point.lstrip("/") / level


def _relative(group: str, top: str) -> PurePosixPath:
    """The group's place under the mount, whose own root is the group ``top``.

    Where the two do not match (another cgroup namespace) the mount shows our group as its root.
    """
    path = PurePosixPath(group)
    return path.relative_to(top) if path.is_relative_to(top) else PurePosixPath()


def _memberships(root: Path) -> dict[str, str]:
    """Controller → group; version 2 has one group for all, under the name ``""``."""
    lines = (line.split(":", 2) for line in sysfs.text(root / "proc/self/cgroup").splitlines())
    return {name: path for _, names, path in lines for name in names.split(",")}


def _mounts(root: Path) -> Iterator[tuple[set[str], str, str]]:
    """Controllers, root group and mount point of each cgroup file system."""
    for line in sysfs.text(root / "proc/self/mountinfo").splitlines():
        mount, _, system = line.partition(" - ")
        kind, _, options = system.split(" ", 2)
        if kind in ("cgroup", "cgroup2"):
            _, _, _, top, point, *_ = mount.split(" ")
            yield ({""} if kind == "cgroup2" else set(options.split(","))), top, point


def _cpu_cores(group: Path) -> float | None:
    words = sysfs.text(group / "cpu.max").split()
    if not words:
        words = [sysfs.text(group / "cpu.cfs_quota_us"), sysfs.text(group / "cpu.cfs_period_us")]
    # No quota is `max` in version 2 and -1 in version 1.
    return int(words[0]) / int(words[1]) if all(word.isdigit() for word in words) else None


def _memory(group: Path) -> tuple[int, int | None] | None:
    """Limit, and what is used of it without the page cache that the kernel drops first."""
    # Above memory.high the kernel stalls a group until it shrinks, and weights cannot shrink: a limit as well.
    names = ("memory.max", "memory.high", "memory.limit_in_bytes")
    found = [limit for name in names if (limit := sysfs.number(group / name)) is not None and limit < UNLIMITED_BYTES]
    if not found:
        return None
    used = sysfs.number(group / "memory.current")
    if used is None:
        used = sysfs.number(group / "memory.usage_in_bytes")
    return min(found), None if used is None else used - _inactive_file(group)


def _inactive_file(group: Path) -> int:
    """Version 1 counts the groups below under ``total_``, version 2 always."""
    lines = (line.split() for line in sysfs.text(group / "memory.stat").splitlines())
    stat = {words[0]: int(words[1]) for words in lines if len(words) == 2 and words[1].isdigit()}
    return stat.get("total_inactive_file", stat.get("inactive_file", 0))
