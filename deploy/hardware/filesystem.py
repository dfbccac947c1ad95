"""The disk behind a folder: file system, size, and whether it spins.

Source: proc_pid_mountinfo(5), the kernel's ABI of /sys/dev/block.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import NamedTuple

from deploy import paths
from deploy.hardware import Disk, sysfs

OCTAL = re.compile(r"\\([0-7]{3})")
"""How mountinfo writes a blank in a path."""
VIRTUAL = re.compile(r"vd[a-z]+|xvd[a-z]+")
"""Devices of a hypervisor."""


class Mount(NamedTuple):
    point: Path
    device: str
    """Major and minor number: 254:0."""
    kind: str
    source: str


def disk(folder: Path, root: Path) -> tuple[Disk, int | None]:
    """The disk of a folder that need not exist yet, and the bytes that this user can still write there."""
    place = paths.nearest(folder).resolve()
    mount = _mount(root / "proc/self/mountinfo", place)
    try:
        usage = shutil.disk_usage(place)
    except OSError:
        usage = None
    facts = Disk(
        filesystem=mount and mount.kind,
        rotational=mount and _rotational(mount, root),
        total_bytes=usage and usage.total,
    )
    return facts, usage and usage.free


def _mount(table: Path, place: Path) -> Mount | None:
    """What the path lies on: the deepest mount point above it, and of several on one point the last."""
    mounts = map(_parse, sysfs.text(table).splitlines())
    above = [mount for mount in mounts if place.is_relative_to(mount.point)]
    return max(reversed(above), key=lambda mount: len(mount.point.parts), default=None)


def _parse(line: str) -> Mount:
    mount, _, system = line.partition(" - ")
    _, _, device, _, point, *_ = mount.split(" ")
    kind, source, *_ = system.split(" ")
    return Mount(Path(OCTAL.sub(lambda found: chr(int(found[1], 8)), point)), device, kind, source)


def _rotational(mount: Mount, root: Path) -> bool | None:
    """Of the block device; None for what has none: overlay, tmpfs, a network."""
    # btrfs counts under numbers of its own, which are no device's: there the name tells.
    for entry in (root / "sys/dev/block" / mount.device, root / "sys/class/block" / Path(mount.source).name):
        folder = entry.resolve()
        # A partition has no queue: its disk, the folder above, has.
        for whole in (folder, folder.parent):
            flag = sysfs.text(whole / "queue/rotational")
            if flag in ("0", "1"):
                # A hypervisor's disk says 1 whatever lies below it.
                return None if flag == "1" and VIRTUAL.fullmatch(whole.name) else flag == "1"
    return None
