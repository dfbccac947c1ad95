"""Files that are whole or not there: write beside, flush to disk, rename over."""

from __future__ import annotations

import os
from pathlib import Path


def write(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """After a crash at any point the path holds the old content or the new, never half of either."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
