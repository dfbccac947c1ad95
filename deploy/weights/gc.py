"""What of the Hugging Face cache can be freed: what we fetched, and of that only what nobody's lock or ref names.

The cache is shared with other tools. A blob is ours if it has our stamp with a place; a snapshot is ours if our
``refs/pinned-*`` names it and no other ref does. Whatever any other snapshot links to stays.

A blob whose stamp was lost (a kill before it was written, or the stamps' file gone) is not taken for ours because it
lies in a snapshot of ours: a tool that downloads by commit links its own blobs there too, and leaves no ref. It stays,
but our ref goes, and then `hf cache prune` takes it.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from deploy import atomic, flock, paths
from deploy.lockfile import Variant
from deploy.weights import cache, stamps
from deploy.weights.freeing import Freeable, Kind, folders, prune, room

INCOMPLETE = re.compile(r".+\.incomplete")
OF_A_FILE = re.compile(r"models--file--[0-9a-f]{12}")
INCOMPLETE_S = 3600.0
"""What is unfinished, not locked by its writer, and was not written to for so long is a leftover."""


@dataclass(frozen=True)
class Wanted:
    """Blobs and snapshot folders that a lock or the deployment needs."""

    blobs: frozenset[Path]
    snapshots: frozenset[Path]


def wanted(variants: Iterable[Variant]) -> Wanted:
    """What these need, whether or not it is here."""
    known = tuple(variants)
    return Wanted(
        blobs=frozenset(cache.spot(cache.blob(variant, file)) for variant in known for file in variant.files),
        snapshots=frozenset(map(cache.snapshot, known)),
    )


def find(needed: Wanted, why: str, *, incomplete: bool) -> Iterator[Freeable]:
    """Per repository: weights, unfinished blobs and, if asked for, those of other tools. ``why`` it is not needed."""
    repositories = [_Repository(folder) for folder in folders(paths.hub_cache(), "models--*")]
    foreign = frozenset(blob for repository in repositories for blob in repository.foreign_blobs())
    for repository in repositories:
        yield from repository.weights(needed, foreign, why)
        yield from repository.unfinished(needed, why)
        yield from repository.temporary(time.time())
        if incomplete:
            yield from repository.incomplete(time.time())


def tidy(item: Freeable) -> None:
    """After it went: the stamps of blobs that are gone, and folders that are empty now."""
    cached = paths.hub_cache()
    repository = cached / Path(item.path).relative_to(cached).parts[0]
    for path in map(Path, item.paths):
        if not os.path.lexists(path):
            stamps.forget(path)
            prune(path.parent, repository)


class _Ref(NamedTuple):
    path: Path
    snapshot: Path
    ours: bool


@dataclass(frozen=True)
class _Repository:
    """One ``models--…`` folder. No symlink is followed out of it."""

    folder: Path

    def foreign_blobs(self) -> Iterator[Path]:
        """What other tools' snapshots lead to."""
        for snapshot in folders(self.folder / "snapshots", "*"):
            if snapshot not in self._ours:
                yield from (target for _, target in _links(snapshot))

    def weights(self, needed: Wanted, foreign: frozenset[Path], why: str) -> Iterator[Freeable]:
        blobs = {cache.spot(path): path for path in self._blobs(cache.BLOB) if self._is_ours(path)}
        gone = blobs.keys() - needed.blobs - foreign
        links = [path for snapshot in sorted(self._ours) for path, target in _links(snapshot) if target in gone]
        pins = [ref.path for ref in self._refs if ref.ours and ref.snapshot not in needed.snapshots]
        # Links before blobs: what a crash leaves is missing, never wrong. Pins last: they make a snapshot ours.
        going = (*links, *(blobs[spot] for spot in sorted(gone)), *pins)
        if going:
            yield _freeable("weights", self.folder, f"fetched by us, and {why}", going)

    def unfinished(self, needed: Wanted, why: str) -> Iterator[Freeable]:
        for path in self._blobs(cache.PART):
            if cache.spot(path.with_suffix("")) not in needed.blobs and flock.idle(path) and path.exists():
                yield _freeable("unfinished", path, f"begun by us, and {why}", (path,), guard=path)

    def incomplete(self, now: float) -> Iterator[Freeable]:
        for path in self._blobs(INCOMPLETE):
            if (idle_s := _idle_s(path, now)) > INCOMPLETE_S:
                why = f"begun by another tool, and not written to for {idle_s / 3600:.0f} h"
                yield _freeable("incomplete", path, why, (path,))

    def temporary(self, now: float) -> Iterator[Freeable]:
        for path in _files(self.folder):
            if atomic.TEMPORARY.fullmatch(path.name) and _idle_s(path, now) > INCOMPLETE_S:
                yield _freeable("unfinished", path, "begun by us, and cut short", (path,))

    @cached_property
    def _refs(self) -> tuple[_Ref, ...]:
        refs = self.folder / "refs"
        found = ((path, _text(path)) for path in _files(refs))
        return tuple(
            _Ref(path, self.folder / "snapshots" / commit, path == refs / f"pinned-{commit[:12]}")
            for path, commit in found
            if commit is not None
        )

    @cached_property
    def _ours(self) -> frozenset[Path]:
        """Snapshots that only our own refs name."""
        return frozenset(ref.snapshot for ref in self._refs if ref.ours) - {
            ref.snapshot for ref in self._refs if not ref.ours
        }

    def _is_ours(self, blob: Path) -> bool:
        if blob.is_symlink():
            # In place of the content of a file of this machine; in other folders, of one in the shared store.
            return OF_A_FILE.fullmatch(self.folder.name) is not None
        stamp = stamps.get(blob)
        try:
            return stamp is not None and stamp.place is not None and stamp.fits(blob.stat())
        except FileNotFoundError:
            return False

    def _blobs(self, name: re.Pattern[str]) -> Iterator[Path]:
        return (path for path in _files(self.folder / "blobs") if name.fullmatch(path.name))


def _freeable(kind: Kind, path: Path, why: str, going: tuple[Path, ...], guard: Path | None = None) -> Freeable:
    return Freeable(
        kind=kind,
        path=str(path),
        why=why,
        frees_bytes=sum(map(room, going)),
        paths=tuple(map(str, going)),
        guard=str(guard) if guard else None,
    )


def _files(folder: Path) -> Iterator[Path]:
    """Files and links, sorted, of a folder and those below; nothing behind a link to a folder."""
    for root, below, names in os.walk(folder) if not folder.is_symlink() else ():
        below.sort()
        yield from (Path(root, name) for name in sorted(names))


def _links(snapshot: Path) -> Iterator[tuple[Path, Path]]:
    """Each link in it, and what that leads to."""
    for path in _files(snapshot):
        if target := cache.hop(path):
            yield path, target


def _text(ref: Path) -> str | None:
    """None: it is gone, or a link to nowhere, and names nothing."""
    try:
        return ref.read_text(errors="replace").strip()
    except FileNotFoundError:
        return None


def _idle_s(path: Path, now: float) -> float:
    """Since it was written to; 0 where it is gone."""
    try:
        return now - path.lstat().st_mtime
    except FileNotFoundError:
        return 0.0
