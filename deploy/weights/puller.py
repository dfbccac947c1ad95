"""Bytes from places into the Hugging Face cache: hashed while they stream, continued where they ended, linked last.

Input is the lock alone: nothing is resolved here. Places are tried in the lock's order, and what one of them
began another one continues, because only the hash of the whole decides.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import msgspec

from deploy import flock, output, paths
from deploy.errors import PlaceError, UserError, WeightsError
from deploy.lockfile import File, Variant, Wheel
from deploy.weights import cache, places, verify
from deploy.weights.part import Part
from deploy.weights.places import Place

if TYPE_CHECKING:
    from rich.progress import Progress

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CACHE = "cache"
"""The place of a file that was there already."""


class Pulled(msgspec.Struct, frozen=True, kw_only=True):
    """One file that is there now. ``path`` is its name in the snapshot."""

    path: str
    place: str
    fetched_bytes: int = 0
    resumed_bytes: int = 0
    """Of this file, found here from an interrupted pull."""


class _Meter:
    """The progress bar of one file. It never runs backwards: a place may announce bytes before it hands them on."""

    def __init__(self, progress: Progress | None, file: File) -> None:
        self._progress = progress
        self._seen = 0
        if progress:
            self._task = progress.add_task(PurePosixPath(file.path).name, total=file.size)

    def reach(self, position: int) -> None:
        self._seen = max(self._seen, position)
        if self._progress:
            self._progress.update(self._task, completed=self._seen)


def free_bytes(path: Path) -> int:
    """What this user can still write on the file system of a path, which need not exist yet."""
    return shutil.disk_usage(paths.nearest(path)).free


def pull(
    variants: tuple[Variant, ...],
    *,
    only: str | None = None,
    progress: Progress | None = None,
    free: Callable[[Path], int] = free_bytes,
) -> tuple[Pulled, ...]:
    """Make every file of the variants be there, verified, and link the snapshots.

    ``only`` is one kind of place: hub, index or file. ``free`` gives the free bytes at a path.
    Raises UserError for too little room, before the first byte; WeightsError where a place gave other bytes than the
    locked ones and no other place could help; PlaceError where no place could give them. Interrupted at any byte,
    it goes on there the next time.
    """
    _check_room(variants, only, free)
    pulled: list[Pulled] = []
    for variant in variants:
        for file in variant.files:
            if variant.origin.kind == "path":
                pulled.append(_link(variant, file, only))
            else:
                pulled.append(_fetch(variant, file, only, progress))
        cache.link(variant)
    return tuple(pulled)


def missing_bytes(variant: Variant) -> int:
    """How many bytes of it are still to be fetched. Files without a stamp are hashed to know."""
    return sum(_missing(variant).values())


def _missing(variant: Variant) -> dict[Path, int]:
    """Bytes to fetch per blob. A file of this machine is linked, so nothing of it is."""
    missing = {}
    for file in variant.files if variant.origin.kind != "path" else ():
        blob, part = cache.blob(variant, file), cache.part(variant, file)
        if verify.difference(blob, file) is not None:
            begun = part.stat().st_size if part.exists() else 0
            missing[blob] = max(0, file.size - begun)
    return missing


def _check_room(variants: tuple[Variant, ...], only: str | None, free: Callable[[Path], int]) -> None:
    """All that is missing, and the largest wheel twice (pip copies it once), against what the file systems have."""
    missing: dict[Path, int] = {}
    for variant in variants:
        missing |= _missing(variant)
    if not missing:
        return
    needed: dict[int, int] = defaultdict(int)
    where: dict[int, Path] = {}
    wheel = max((wheel.size for variant in variants for wheel in _wheels(variant, only)), default=0)
    for path, size in ((paths.hub_cache(), sum(missing.values())), (paths.wheels_dir(), 2 * wheel)):
        device = paths.nearest(path).stat().st_dev
        needed[device] += size
        where.setdefault(device, path)
    for device, path in where.items():
        available = free(path)
        if needed[device] > available:
            raise UserError(
                f"no room: {output.size(needed[device])} ({needed[device]} bytes) are still to be written, "
                f"{output.size(available)} ({available} bytes) are free",
                where=str(path),
                hint="free some, or HF_HOME=/a/larger/disk ownweights pull",
            )


def _wheels(variant: Variant, only: str | None) -> Iterator[Wheel]:
    for place in variant.places:
        if only in (None, place.kind):
            yield from place.wheels


def _link(variant: Variant, file: File, only: str | None) -> Pulled:
    """A file of this machine stays where it is: its blob is a link to it."""
    source = cache.source(variant, file)
    if source is None or only not in (None, "file"):
        raise _no_place(file, only)
    if wrong := verify.difference(source, file):
        raise WeightsError(
            f"not the file that was locked: expected {file.size} bytes, sha256 {file.sha256}, found {wrong}",
            where=str(source),
            hint="ownweights lock  # if it was changed on purpose",
        )
    cache.symlink(cache.blob(variant, file), source)
    return Pulled(path=_path(variant, file), place=f"file {source}")


def _fetch(variant: Variant, file: File, only: str | None, progress: Progress | None) -> Pulled:
    blob, unfinished = cache.blob(variant, file), cache.part(variant, file)
    if verify.difference(blob, file) is None:
        return Pulled(path=_path(variant, file), place=CACHE)
    with flock.held(unfinished, waiting=f"`{file.path}` is being fetched by another ownweights: waiting") as raw:
        wrong = verify.difference(blob, file)
        if wrong is None:
            unfinished.unlink()
            return Pulled(path=_path(variant, file), place=CACHE)
        if os.path.lexists(blob):
            output.warn(f"`{file.path}` in the cache is {wrong}, not the locked sha256 {file.sha256}: removed")
            blob.unlink()
        part = Part(raw, file)
        try:
            place = _fill(part, variant, file, only, _Meter(progress, file))
        except UserError:
            if not part.count:
                unfinished.unlink()
            raise
        verify.record(blob, file.sha256, part.seal(blob), place=place)
    kept = f", {output.size(part.resumed)} of it from an earlier pull" if part.resumed else ""
    output.say(f"`{file.path}`: {output.size(file.size)} from {place}{kept}, sha256 {file.sha256[:12]}")
    return Pulled(
        path=_path(variant, file),
        place=place,
        fetched_bytes=file.size - part.resumed,
        resumed_bytes=part.resumed,
    )


def _fill(part: Part, variant: Variant, file: File, only: str | None, meter: _Meter) -> str:
    """Complete the part from the first place that can; that place's name."""
    if part.mismatch() is None:
        return CACHE
    failures: list[tuple[str, UserError]] = []
    for place in places.of(variant, file, only, meter.reach):
        if failures:
            name, error = failures[-1]
            # Other bytes than the locked ones are always loud; a place out of reach is so once.
            about = name.split()[0] if isinstance(error, PlaceError) else None
            output.warn(f"`{file.path}` from {name}: {error}; now from {place.name}", about=about)
        try:
            _fill_from(place, part, variant, file, meter)
        except (PlaceError, WeightsError) as error:
            failures.append((place.name, error))
        else:
            return place.name
    raise _nowhere(file, failures) if failures else _no_place(file, only)


def _fill_from(place: Place, part: Part, variant: Variant, file: File, meter: _Meter) -> None:
    """Raises PlaceError, and keeps what it got, or WeightsError, and keeps nothing."""
    began = part.count
    with closing(place.open(variant, file, began)) as chunks:
        for chunk in chunks:
            _append(part, chunk, file)
            meter.reach(part.count)
            if part.count > file.size:
                break
    if part.count < file.size:
        raise PlaceError(f"ended after {part.count} of {file.size} bytes")
    wrong = part.mismatch()
    if wrong is None:
        return
    part.restart()
    if not began:
        raise WeightsError(wrong)
    output.warn(f"`{file.path}` begun earlier and ended by {place.name}: {wrong}; from the start again")
    _fill_from(place, part, variant, file, meter)


def _append(part: Part, chunk: bytes, file: File) -> None:
    try:
        part.append(chunk)
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise UserError(
            f"no room left: {error.strerror}; {part.count} of {file.size} bytes of `{file.path}` are kept",
            where=str(paths.hub_cache()),
            hint="ownweights pull  # continues, once there is room",
        ) from error


def _nowhere(file: File, failures: list[tuple[str, UserError]]) -> UserError:
    """Every place with its reason. Wrong bytes weigh more than no bytes."""
    listed = "".join(f"\n  {name}: {error}" for name, error in failures)
    kind = WeightsError if any(isinstance(error, WeightsError) for _, error in failures) else PlaceError
    hints = [error.hint for _, error in failures if error.hint]
    return kind(f"no place gave `{file.path}` as it is locked:{listed}", hint=hints[-1] if hints else "ownweights pull")


def _no_place(file: File, only: str | None) -> PlaceError:
    kind = f"{only} " if only else ""
    return PlaceError(f"the lock names no {kind}place for `{file.path}`", hint="ownweights pull")


def _path(variant: Variant, file: File) -> str:
    return str(cache.snapshot(variant) / file.path)
