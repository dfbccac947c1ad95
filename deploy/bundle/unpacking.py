"""A bundle is taken in: every byte proved before anything is visible, the lock written last.

Blobs go through the same part files as a pull, so whatever ended an import, the next one goes on at that byte.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from deploy import __version__, atomic, bundle, config, digests, disk, flock, lockfile, output, paths
from deploy.bundle import HISTORY, HUB, LOCK, WHEELS, WISHES, Slot
from deploy.bundle.archive import Archive, Short
from deploy.changes import history
from deploy.errors import LockError, WeightsError
from deploy.lockfile import File, Lock, Variant
from deploy.stop import Stop
from deploy.weights import cache, room, verify
from deploy.weights.part import Part

if TYPE_CHECKING:
    from rich.progress import Progress


WISHES_BYTES = 1 << 20
BEFORE = f"{WISHES}.before-import"
"""The models.toml that was replaced, comments and all: no lock holds it."""


class Unpacked(msgspec.Struct, frozen=True, kw_only=True):
    """What a bundle brought. ``manifest`` is the sha256 that its export printed."""

    manifest: str
    lock: str
    models: tuple[str, ...]
    """Of which weights are here now."""
    left_out: tuple[str, ...]
    """In the lock, and none of their weights in the bundle."""
    blobs: int
    blobs_size: int
    wheels: int
    """0 where they are for another platform or Python."""
    kept: str | None
    """Where the models.toml is now that was replaced."""


def unpack(
    path: Path,
    folder: Path,
    *,
    replace: bool = False,
    progress: Progress | None = None,
    free: Callable[[Path], int] = disk.free_bytes,
) -> Unpacked:
    """Take a bundle in, for the project in ``folder``. ``replace`` puts its lock in place of another one.

    Raises WeightsError for damaged or missing bytes, and then nothing is linked and no lock written; UserError for
    too little room or a lock that is another one, before anything is written.
    """
    archive = Archive(path)
    lock, wishes = _lock(archive), archive.text(archive.wishes, WISHES_BYTES)
    config.parse(wishes, where=f"{WISHES} in {archive.name}")
    _refuse_other(folder, lock, wishes, replace=replace)
    blobs = _blobs(archive, lock)
    _warn(archive)
    _require_room(archive, blobs, free)
    variants = [variant for model in lock.models for variant in model.variants if _is_in(variant, archive)]
    with cache.used():
        earlier = _take_all(archive, blobs, progress)
        for variant in variants:
            cache.link(variant, variants)
        kept = _write(folder, lock, wishes, earlier, archive.name)
    brought = {model.name for model in lock.models if any(variant in variants for variant in model.variants)}
    return Unpacked(
        manifest=archive.digest,
        lock=lock.digest,
        models=tuple(model.name for model in lock.models if model.name in brought),
        left_out=tuple(model.name for model in lock.models if model.name not in brought),
        blobs=len(blobs),
        blobs_size=sum(file.size for _, file in blobs.values()),
        wheels=sum(_is_wheel(slot, archive) for slot in archive.slots),
        kept=str(kept) if kept else None,
    )


def _lock(archive: Archive) -> Lock:
    text = archive.text(archive.lock, lockfile.MOST_BYTES)
    lock = lockfile.parse(text, where=f"{LOCK} in {archive.name}")
    if lock.digest != archive.manifest.lock:
        raise WeightsError(
            f"the lock inside is not the manifest's: expected {archive.manifest.lock}, found {lock.digest}",
            where=archive.name,
        )
    return lock


def _refuse_other(folder: Path, lock: Lock, wishes: str, *, replace: bool) -> None:
    for name, text in ((LOCK, lockfile.write(lock)), (WISHES, wishes)):
        path = folder / name
        if replace or not path.exists() or path.read_bytes() == text.encode():
            continue
        raise LockError(
            f"another {name} lies here: sha256 {digests.of_file(path)}, "
            f"the bundle's is {digests.of_bytes(text.encode())}",
            where=str(path),
            hint=f"the same command with --replace (`ownweights history` keeps the lock, {BEFORE} the wishes), "
            "or from an empty folder",
        )


def _blobs(archive: Archive, lock: Lock) -> dict[str, tuple[Variant, File]]:
    """The weights in the bundle, by member. Each must be one that the lock names, with its size and hash."""
    locked = {
        bundle.blob(variant, file): (variant, file)
        for model in lock.models
        for variant in model.variants
        for file in variant.files
    }
    found = {}
    for slot in archive.slots:
        member = slot.member
        if not member.name.startswith(HUB):
            continue
        variant, file = locked.get(member.name, (None, None))
        if variant is None or file is None or (file.size, file.sha256) != (member.size, member.sha256):
            raise WeightsError(f"`{member.name}` is not what the lock inside says", where=archive.name)
        found[member.name] = (variant, file)
    return found


def _is_in(variant: Variant, archive: Archive) -> bool:
    names = {slot.member.name for slot in archive.slots}
    return all(bundle.blob(variant, file) in names for file in variant.files)


def _is_wheel(slot: Slot, archive: Archive) -> bool:
    """One that this box can use."""
    return slot.member.name.startswith(WHEELS) and archive.manifest.fits


def _warn(archive: Archive) -> None:
    found, here = archive.manifest, " ".join(bundle.here())
    if not found.fits and any(slot.member.name.startswith(WHEELS) for slot in archive.slots):
        output.warn(
            f"the bundle's engines are for {found.platform} {found.python}, this is {here}: "
            "only its weights are taken, engines need a package index"
        )
    if found.generator != f"ownweights {__version__}":
        output.warn(f"made by {found.generator}, this is ownweights {__version__}: it may pin other engines")


def _require_room(archive: Archive, blobs: dict[str, tuple[Variant, File]], free: Callable[[Path], int]) -> None:
    weights = wheels = 0
    for slot in archive.slots:
        if slot.member.name in blobs:
            variant, file = blobs[slot.member.name]
            blob, part = cache.blob(variant, file), cache.part(variant, file)
            if verify.difference(blob, file) is not None:
                weights += room.rest(file, part)
        elif _is_wheel(slot, archive) and not _wheel(slot).exists():
            wheels += slot.member.size
    disk.require(
        {paths.hub_cache(): weights, paths.wheelhouse_dir(): wheels},
        "free some, or HF_HOME=/a/larger/disk OWNWEIGHTS_HOME=/another ownweights bundle import",
        free,
    )


def _take_all(archive: Archive, blobs: dict[str, tuple[Variant, File]], progress: Progress | None) -> list[Lock]:
    """Every member behind lock and wishes, as far as the archive goes; the earlier locks, oldest first."""
    earlier: list[Lock] = []
    task = progress.add_task("bundle", total=archive.slots[-1].end) if progress else None

    def reach(position: int) -> None:
        if progress and task is not None:
            progress.update(task, completed=position)

    for slot in archive.rest:
        name = slot.member.name
        try:
            if name in blobs:
                _take_blob(archive, slot, *blobs[name], reach)
            elif _is_wheel(slot, archive):
                _take_wheel(archive, slot)
            elif name.startswith(HISTORY):
                earlier.append(
                    lockfile.parse(archive.text(slot, lockfile.MOST_BYTES), where=f"{name} in {archive.name}")
                )
            else:
                # `core/`, for those who begin with tar; wheels that do not fit. Damage is told all the same.
                for _ in archive.proved(slot):
                    pass
        except Short:
            continue
        reach(slot.end)
    if archive.gaps():
        raise archive.incomplete()
    return earlier


def _take_blob(archive: Archive, slot: Slot, variant: Variant, file: File, reach: Callable[[int], None]) -> None:
    blob, unfinished = cache.blob(variant, file), cache.part(variant, file)
    if verify.difference(blob, file) is None:
        return
    with flock.held(unfinished, waiting=f"`{file.path}` is being fetched by another ownweights: waiting") as raw:
        wrong = verify.difference(blob, file)
        if wrong is None:
            unfinished.unlink()
            return
        part = Part(raw, file, Stop())
        try:
            _fill(archive, slot, part, reach)
        finally:
            if not part.count and file.size:
                unfinished.unlink()
        if os.path.lexists(blob):
            output.warn(f"`{file.path}` in the cache is {wrong}, not the locked sha256 {file.sha256}: replaced")
        verify.record(blob, file.sha256, part.seal(blob), place=f"bundle {archive.name}")


def _fill(archive: Archive, slot: Slot, part: Part, reach: Callable[[int], None]) -> None:
    """Raises Short, and keeps what it got, or WeightsError, and keeps nothing."""
    began = part.count
    if began < slot.member.size:
        for chunk in archive.read(slot, began):
            part.append(chunk)
            reach(slot.start + part.count)
        if part.count < slot.member.size:
            raise Short(slot.member.name)
    wrong = part.mismatch()
    if wrong is None:
        return
    part.restart()
    if began:
        _fill(archive, slot, part, reach)
        return
    raise archive.damaged(f"`{slot.member.name}`", wrong)


def _wheel(slot: Slot) -> Path:
    return paths.wheelhouse_dir() / slot.member.name.removeprefix(WHEELS)


def _take_wheel(archive: Archive, slot: Slot) -> None:
    path = _wheel(slot)
    if path.exists() and digests.of_file(path) == slot.member.sha256:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            file.writelines(archive.proved(slot))
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _write(folder: Path, lock: Lock, wishes: str, earlier: list[Lock], name: str) -> Path | None:
    """Last of all; where the models.toml that lay here is now.

    What lay here comes right before the new lock in the history: it is what a rollback leads to, and its weights stay.
    """
    path, imported = folder / LOCK, f"imported from {name}"
    known = {entry.digest for entry in history.entries(folder)}
    for older in earlier:
        if older.digest not in known:
            history.keep(folder, older, imported)
    if path.exists():
        try:
            history.keep(folder, lockfile.read(path), history.FOUND)
        except LockError as error:
            output.warn(f"the lock that lay here is not kept: {error}")
    history.keep(folder, lock, imported)
    kept = _keep_wishes(folder, wishes)
    atomic.write(folder / WISHES, wishes.encode())
    atomic.write(path, lockfile.write(lock).encode())
    return kept


def _keep_wishes(folder: Path, wishes: str) -> Path | None:
    path, beside = folder / WISHES, folder / BEFORE
    if not path.exists() or (content := path.read_bytes()) == wishes.encode():
        return None
    atomic.write(beside, content)
    return beside
