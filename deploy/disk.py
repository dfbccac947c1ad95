"""Room on the disks, asked for before the first byte."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path

from deploy import output, paths
from deploy.errors import UserError


def free_bytes(path: Path) -> int:
    """What this user can still write on the file system of a path, which need not exist yet."""
    return shutil.disk_usage(paths.nearest(path)).free


def require(needed: Mapping[Path, int], hint: str, free: Callable[[Path], int] = free_bytes) -> None:
    """``needed``: a place → bytes still to be written there. Raises UserError with both numbers.

    Places on one file system share its room.
    """
    together: dict[int, int] = defaultdict(int)
    where: dict[int, Path] = {}
    for path, count in needed.items():
        device = paths.nearest(path).stat().st_dev
        together[device] += count
        where.setdefault(device, path)
    for device, path in where.items():
        available = free(path)
        if together[device] > available:
            raise UserError(
                f"no room: {output.size(together[device])} ({together[device]} bytes) are still to be written, "
                f"{output.size(available)} ({available} bytes) are free",
                where=str(path),
                hint=hint,
            )
