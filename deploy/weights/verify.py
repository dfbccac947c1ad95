"""The weights on disk against the lock, offline: every wrong, missing, extra or replaced file by name.

A file that passed a full hash gets a stamp (size, mtime, inode), so that the next look costs one stat. A stamp
is a shortcut, not a proof: ``full`` hashes every byte whatever the stamps say.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path, PurePosixPath
from typing import Literal

import msgspec

from deploy import atomic, flock, paths
from deploy.errors import WeightsError
from deploy.lockfile import File, Variant
from deploy.weights import cache

NAMED = 20
"""So many findings are spelled out in an error; `ownweights verify` lists all."""


Problem = Literal["missing", "changed", "extra", "not-linked"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is not as locked. ``path`` is the file's within the variant."""

    path: str
    problem: Problem
    expected: str | None = None
    found: str | None = None

    def __str__(self) -> str:
        wanted = f", expected {self.expected}" if self.expected else ""
        return f"`{self.path}` {self.problem}{wanted}" + (f", found {self.found}" if self.found else "")


class Stamp(msgspec.Struct, frozen=True, kw_only=True):
    """A blob as it was when all of it hashed to ``sha256``. ``place`` is where it came from, if we fetched it."""

    size: int
    mtime_ns: int
    inode: int
    sha256: str
    place: str | None = None

    def fits(self, found: os.stat_result) -> bool:
        return (self.size, self.mtime_ns, self.inode) == (found.st_size, found.st_mtime_ns, found.st_ino)


def check(variant: Variant, *, full: bool = False) -> tuple[Finding, ...]:
    """Everything that differs from the lock; empty: all of it is there, unchanged, and nothing else is."""
    files = (_check(variant, file, full=full) for file in variant.files)
    base = cache.snapshot(variant)
    extra = (Finding(path=str(stray.relative_to(base)), problem="extra") for stray in cache.strays(variant))
    return tuple(finding for finding in (*files, *extra) if finding)


def refuse(variant: Variant, *, only: Problem | None = None) -> None:
    """Raises WeightsError with the findings, if there are any; ``only``: of this kind."""
    findings = [finding for finding in check(variant) if only in (None, finding.problem)]
    if not findings:
        return
    listed = "".join(f"\n  {finding}" for finding in findings[:NAMED])
    more = f"\n  and {len(findings) - NAMED} more" if len(findings) > NAMED else ""
    base = cache.snapshot(variant)
    extra = [finding.path for finding in findings if finding.problem == "extra"]
    raise WeightsError(
        f"the weights in {base} are not what the lock says:{listed}{more}",
        hint=f"rm -r '{base / extra[0]}'" if len(extra) == len(findings) else "ownweights pull",
    )


def present(variant: Variant) -> bool:
    """Whether anything of it is on this disk, so that a variant that was never pulled is no finding."""
    entries = ((cache.blob(variant, file), cache.snapshot(variant) / file.path) for file in variant.files)
    return any(os.path.lexists(blob) or os.path.lexists(entry) for blob, entry in entries)


def provenance(variant: Variant) -> str | None:
    """The places its bytes came from, as recorded when they were fetched; None: they were not fetched by us."""
    stamps = _stamps()
    found = (stamps.get(_key(cache.blob(variant, file))) for file in variant.files)
    return ", ".join(sorted({stamp.place for stamp in found if stamp and stamp.place})) or None


def difference(path: Path, file: File, *, full: bool = False) -> str | None:
    """What is there instead of the locked bytes, for people; None: they are right, and stamped as such."""
    try:
        with path.open("rb") as content:
            before = os.fstat(content.fileno())
            if before.st_size != file.size:
                return f"{before.st_size} bytes"
            stamp = None if full else _stamps().get(_key(path))
            if stamp and stamp.sha256 == file.sha256 and stamp.fits(before):
                return None
            found = hashlib.file_digest(content, "sha256").hexdigest()
    except FileNotFoundError:
        return "nothing"
    except OSError as error:
        return f"what cannot be read: {error.strerror}"
    if found != file.sha256:
        return f"sha256 {found}"
    record(path, found, before)
    return None


def record(path: Path, sha256: str, found: os.stat_result, *, place: str | None = None) -> None:
    """Stamp a file that hashed to ``sha256`` while it was as ``found``. Not being able to write it costs time only."""
    with contextlib.suppress(OSError), flock.held(paths.stamps_file().with_suffix(".flock")):
        stamps = _stamps()
        known = stamps.get(_key(path))
        if place is None and known and known.sha256 == sha256:
            place = known.place
        stamps[_key(path)] = Stamp(
            size=found.st_size, mtime_ns=found.st_mtime_ns, inode=found.st_ino, sha256=sha256, place=place
        )
        atomic.write(paths.stamps_file(), msgspec.json.encode(stamps))


def _stamps() -> dict[str, Stamp]:
    """By absolute path, links followed. A damaged file is no stamps: everything is hashed once more."""
    try:
        return msgspec.json.decode(paths.stamps_file().read_bytes(), type=dict[str, Stamp])
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return {}


def _key(path: Path) -> str:
    return os.path.realpath(path)


def _check(variant: Variant, file: File, *, full: bool) -> Finding | None:
    blob = cache.blob(variant, file)
    locked = f"{file.size} bytes, sha256 {file.sha256}"
    if not blob.exists():
        found = f"a link to `{cache.hop(blob)}`, which is gone" if blob.is_symlink() else None
        return Finding(path=file.path, problem="missing", expected=locked, found=found)
    if detour := _detour(variant, file):
        return Finding(path=file.path, problem="not-linked", expected=f"a link to `{blob}`", found=detour)
    if different := difference(blob, file, full=full):
        return Finding(path=file.path, problem="changed", expected=locked, found=different)
    return None


def _detour(variant: Variant, file: File) -> str | None:
    """How the snapshot's entry does not lead to the blob, or the blob to somewhere it must not."""
    base, blob = cache.snapshot(variant), cache.blob(variant, file)
    entry = base / file.path
    for parent in list(PurePosixPath(file.path).parents)[:-1]:
        if (base / parent).is_symlink():
            return f"the folder `{parent}` is a link to `{cache.hop(base / parent)}`"
    if not os.path.lexists(entry):
        return "nothing"
    target = cache.hop(entry)
    if target is None:
        return "a file of its own"
    if target != cache.spot(blob):
        return f"a link to `{target}`"
    content = cache.hop(blob)
    source = cache.source(variant, file)
    if content is None or _shared(content) or (source and content == cache.spot(source)):
        return None
    return f"a blob that is a link to `{content}`"


def _shared(content: Path) -> bool:
    """In the store that huggingface_hub shares between repositories (Xet files)."""
    return content.is_relative_to((paths.hub_cache() / "blobs").resolve()) and not content.is_symlink()
