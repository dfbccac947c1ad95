"""Files that are whole or not there: write beside, flush to disk, rename over."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

TEMPORARY = re.compile(r"\.ownweights-[0-9a-f]{16}")
"""What a kill may leave: nobody's, once its writer has ended."""


def temporary(folder: Path) -> Path:
    """A name that nobody else uses, and short: a file's own may be as long as the file system allows."""
    return folder / f".ownweights-{secrets.token_hex(8)}"


def write(path: Path, data: bytes, *, mode: int = 0o644, scratch: Path | None = None) -> None:
    """After a crash at any point the path holds the old content or the new, never half of either.

    ``scratch``: a folder of the same file system to write in, where others read whatever lies beside the path.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = temporary(scratch or path.parent)
    try:
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
