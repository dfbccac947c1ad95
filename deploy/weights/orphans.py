"""Unfinished blobs of ours that no lock wants any more: removed, and said with their size."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from deploy import flock, output
from deploy.weights import cache


def sweep(folders: Iterable[Path], keep: frozenset[str]) -> None:
    """Remove the parts in these ``blobs/`` folders whose blob is not in ``keep``, unless somebody holds them.

    Other tools' unfinished files have other names, and are theirs.
    """
    for folder in folders:
        for path, name in cache.parts(folder):
            if name in keep:
                continue
            with flock.tried(path) as file:
                if file is not None:
                    size = path.stat().st_size
                    path.unlink()
                    output.say(f"removed `{path}`: {output.size(size)} of a file that the lock no longer names")
