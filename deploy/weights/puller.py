"""Bytes from places into the Hugging Face cache: several files at once, each hashed while it streams, linked last.

Input is the lock alone: nothing is resolved here. Only the hash of the whole decides what counts, never the place.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from deploy import disk
from deploy.lockfile import File, Variant
from deploy.stop import Stop
from deploy.weights import blob, cache, orphans, room, workers
from deploy.weights.blob import CACHE, Pulled
from deploy.weights.meter import Meters
from deploy.weights.places import Only

if TYPE_CHECKING:
    from rich.progress import Progress


def pull(
    variants: tuple[Variant, ...],
    *,
    only: Only | None = None,
    keep: frozenset[str] | None = None,
    progress: Progress | None = None,
    free: Callable[[Path], int] = disk.free_bytes,
) -> tuple[Pulled, ...]:
    """Make every file of the variants be there, verified, and link the snapshots.

    ``only`` insists on one place. ``keep`` names the blobs that may have been begun for later: other parts of the
    same repositories are swept; None sweeps nothing. ``free`` gives the free bytes at a path.
    Raises UserError for too little room, before the first byte, and what ``blob.fetch`` raises. Interrupted at any
    byte, it goes on there the next time. So the first file that fails ends the others too: nothing they got is lost,
    and who waits for hundreds of gigabytes hears of it now. Meanwhile nothing is removed by `gc`.
    """
    with cache.used():
        return _pull(variants, only, keep, progress, free)


def _pull(
    variants: tuple[Variant, ...],
    only: Only | None,
    keep: frozenset[str] | None,
    progress: Progress | None,
    free: Callable[[Path], int],
) -> tuple[Pulled, ...]:
    wanted: dict[Path, tuple[Variant, File]] = {}
    for variant in variants:
        for file in variant.files:
            wanted.setdefault(cache.blob(variant, file), (variant, file))
    if keep is not None:
        orphans.sweep({path.parent for path in wanted}, keep | {path.name for path in wanted})
    absent = room.missing(variants, progress)
    room.require(variants, absent, only=only, free=free)
    stop, meters = Stop(), _meters(progress, wanted, absent)
    jobs = {
        path: partial(_have, variant, file, only, meters, stop)
        for path, (variant, file) in wanted.items()
        if path in absent or variant.origin.kind == "path"
    }
    pulled = {path: _cached(variant, file) for path, (variant, file) in wanted.items() if path not in jobs}
    try:
        with closing(workers.run(jobs.values(), count=room.AT_ONCE, stop=stop)) as ended:
            order = tuple(jobs)
            for number, result in ended:
                pulled[order[number]] = result
    finally:
        # Also where another variant failed: what is complete can be used.
        for variant in variants:
            if all(cache.blob(variant, file) in pulled for file in variant.files):
                cache.link(variant, variants)
    # Of files with one content, the first one is said to have been fetched.
    return tuple(
        pulled.pop(cache.blob(variant, file), _cached(variant, file)) for variant in variants for file in variant.files
    )


def _meters(progress: Progress | None, wanted: dict[Path, tuple[Variant, File]], absent: dict[Path, int]) -> Meters:
    size = sum(wanted[path][1].size for path in absent)
    return Meters(progress, files=len(absent), size=size, kept=size - sum(absent.values()))


def _have(variant: Variant, file: File, only: Only | None, meters: Meters, stop: Stop) -> Pulled:
    if variant.origin.kind == "path":
        return blob.link(variant, file, only, stop)
    return blob.fetch(variant, file, only, meters, stop)


def _cached(variant: Variant, file: File) -> Pulled:
    return Pulled(path=blob.entry(variant, file), place=CACHE)
