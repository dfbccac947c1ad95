"""The weights on disk against the lock, offline: every wrong, missing, extra or replaced file by name.

A file that passed a full hash gets a stamp (size, mtime, inode), so that the next look costs one stat. A stamp
is a shortcut, not a proof. Three depths: ``quick`` believes the stamps and reads nothing, ``stamped`` hashes what has
none, ``full`` hashes every byte whatever the stamps say.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from deploy import paths
from deploy.errors import UserError, WeightsError
from deploy.lockfile import File, Variant
from deploy.weights import cache, hashing, stamps
from deploy.weights.hashing import Reach
from deploy.weights.stamps import Stamp

if TYPE_CHECKING:
    from rich.progress import Progress

NAMED = 20
"""So many findings are spelled out in an error; `ownweights verify` lists all."""

Problem = Literal["missing", "changed", "extra", "not-linked", "unreadable", "unproved"]
"""``unreadable``: it may be right or wrong, the disk or its rights keep us from knowing. ``unproved``: the right size,
but nobody has hashed it as it is now; only a quick check says so."""
Depth = Literal["quick", "stamped", "full"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is not as locked. ``path`` is the file's within the variant."""

    path: str
    problem: Problem
    expected: str | None = None
    found: str | None = None

    def __str__(self) -> str:
        wanted = f", expected {self.expected}" if self.expected else ""
        return f"`{self.path}` {self.problem}{wanted}" + (f", found {self.found}" if self.found else "")


class Named(Finding, frozen=True, kw_only=True):
    """The same, and whose it is: where several variants are checked."""

    model: str
    variant: str


class _Job(NamedTuple):
    """One content to prove: a blob, and what it should hold. Several files may be that content."""

    blob: Path
    size: int
    sha256: str


class _Wrong(NamedTuple):
    problem: Problem
    found: str


def check(variant: Variant, *, full: bool = False) -> tuple[Finding, ...]:
    """Everything that differs from the lock; empty: all of it is there, unchanged, and nothing else is."""
    (findings,) = inspect((variant,), "full" if full else "stamped")
    return findings


def inspect(
    variants: Sequence[Variant], depth: Depth, progress: Progress | None = None
) -> tuple[tuple[Finding, ...], ...]:
    """The same of several, in their order. A blob that they share is read once, the blobs beside each other.

    Where several lie in one snapshot, none of their files is extra there.
    """
    placed = [[(file, _misplaced(variant, file)) for file in variant.files] for variant in variants]
    pairs = tuple(zip(variants, placed, strict=True))
    jobs = (_job(variant, file) for variant, files in pairs for file, finding in files if finding is None)
    wrong = _contents(tuple(dict.fromkeys(jobs)), depth, progress)
    found = []
    for variant, files in pairs:
        contents = (finding or _changed(file, wrong.get(_job(variant, file))) for file, finding in files)
        found.append((*filter(None, contents), *_extra(variant, variants)))
    return tuple(found)


def _job(variant: Variant, file: File) -> _Job:
    return _Job(cache.blob(variant, file), file.size, file.sha256)


def _changed(file: File, wrong: _Wrong | None) -> Finding | None:
    return wrong and _finding(file, wrong.problem, wrong.found)


def _contents(jobs: Sequence[_Job], depth: Depth, progress: Progress | None) -> dict[_Job, _Wrong]:
    """What is wrong with the bytes."""
    if depth != "full":
        looks = {job: wrong for job in jobs if (wrong := _look(job))}
        if depth == "quick":
            return looks
        jobs = tuple(looks)
    hashed = hashing.each(jobs, _difference, lambda job: job.size, progress)
    return {job: wrong for job, wrong in hashed.items() if wrong}


def _look(job: _Job) -> _Wrong | None:
    """What speaks against it without reading it."""
    try:
        found = job.blob.stat()
    except FileNotFoundError:
        return _Wrong("missing", "nothing")
    except OSError as error:
        return _unreadable(error)
    if found.st_size != job.size:
        return _Wrong("changed", f"{found.st_size} bytes")
    if not os.access(job.blob, os.R_OK):
        return _unreadable(PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
    stamp = stamps.get(job.blob)
    if stamp is None and stamps.held():
        return _Wrong("unproved", "bytes that may have been hashed: another process holds the stamps")
    if stamp is None or stamp.sha256 != job.sha256:
        return _Wrong("unproved", "bytes that were never hashed")
    return None if stamp.fits(found) else _Wrong("unproved", "bytes written since they were hashed")


def refuse(variant: Variant, *, only: tuple[Problem, ...] = ()) -> None:
    """Raises WeightsError with the findings, if there are any; ``only``: of these kinds."""
    findings = [finding for finding in check(variant) if not only or finding.problem in only]
    if not findings:
        return
    listed = "".join(f"\n  {finding}" for finding in findings[:NAMED])
    more = f"\n  and {len(findings) - NAMED} more" if len(findings) > NAMED else ""
    base = cache.snapshot(variant)
    unknown = all(finding.problem == "unreadable" for finding in findings)
    verdict = "cannot be verified" if unknown else "are not what the lock says"
    raise WeightsError(f"the weights in {base} {verdict}:{listed}{more}", hint=_remedy(base, findings))


def _remedy(base: Path, findings: Sequence[Finding]) -> str:
    paths_of = {finding.problem: base / finding.path for finding in findings}
    if paths_of.keys() == {"extra"}:
        return f"rm -r '{base / findings[0].path}'"
    if unreadable := paths_of.get("unreadable"):
        return f"ls -lL '{unreadable}'  # or: HF_HUB_CACHE=/a/writable/folder ownweights deploy"
    return "ownweights pull"


def exit_code(findings: Sequence[Finding]) -> int:
    """0: as locked; 1: something is only not here, or not hashed or read; that of WeightsError: something differs."""
    if any(finding.problem not in ("missing", "unreadable", "unproved") for finding in findings):
        return WeightsError.exit_code
    return UserError.exit_code if findings else 0


def present(variant: Variant) -> bool:
    """Whether anything of it is on this disk, so that a variant that was never pulled is no finding."""
    entries = ((cache.blob(variant, file), cache.snapshot(variant) / file.path) for file in variant.files)
    return any(os.path.lexists(blob) or os.path.lexists(entry) for blob, entry in entries)


def provenance(variant: Variant) -> str | None:
    """The places its bytes came from, as recorded when they were fetched; None: they were not fetched by us."""
    found = (stamps.get(cache.blob(variant, file)) for file in variant.files)
    return ", ".join(sorted({stamp.place for stamp in found if stamp and stamp.place})) or None


def difference(path: Path, file: File, *, reach: Reach = lambda _: None) -> str | None:
    """What is there instead of the locked bytes, for people; None: they are right, and stamped as such."""
    job = _Job(path, file.size, file.sha256)
    if _look(job) is None:
        return None
    wrong = _difference(job, reach)
    return wrong and wrong.found


def _difference(job: _Job, reach: Reach) -> _Wrong | None:
    """What is wrong with the bytes, all of which are read if their number is right."""
    try:
        with job.blob.open("rb", buffering=0) as content:
            before = os.fstat(content.fileno())
            if before.st_size != job.size:
                return _Wrong("changed", f"{before.st_size} bytes")
            found = hashing.sha256(content, reach)
    except FileNotFoundError:
        return _Wrong("missing", "nothing")
    except IsADirectoryError:
        return _Wrong("changed", "a folder")
    except OSError as error:
        return _unreadable(error)
    if found != job.sha256:
        # Or a stamp from before would go on vouching for it.
        stamps.forget(job.blob)
        return _Wrong("changed", f"sha256 {found}")
    record(job.blob, found, before)
    return None


def record(path: Path, sha256: str, found: os.stat_result, *, place: str | None = None) -> None:
    """Stamp a file that hashed to ``sha256`` while it was as ``found``. Not being able to write it costs time only."""
    known = stamps.get(path) if place is None else None
    if known and (known.sha256, known.inode) == (sha256, found.st_ino):
        place = known.place
    stamp = Stamp(size=found.st_size, mtime_ns=found.st_mtime_ns, inode=found.st_ino, sha256=sha256, place=place)
    stamps.put(path, stamp)


def _misplaced(variant: Variant, file: File) -> Finding | None:
    """What keeps its name from leading to its bytes, whatever they are."""
    try:
        return _off(variant, file)
    except OSError as error:
        return _finding(file, "unreadable", _unreadable(error).found)


def _off(variant: Variant, file: File) -> Finding | None:
    blob = cache.blob(variant, file)
    if not blob.exists():
        found = f"a link to `{cache.hop(blob)}`, which is gone" if blob.is_symlink() else None
        return _finding(file, "missing", found)
    if detour := _detour(variant, file):
        return Finding(path=file.path, problem="not-linked", expected=f"a link to `{blob}`", found=detour)
    return None


def _finding(file: File, problem: Problem, found: str | None) -> Finding:
    return Finding(path=file.path, problem=problem, expected=f"{file.size} bytes, sha256 {file.sha256}", found=found)


def _unreadable(error: OSError) -> _Wrong:
    return _Wrong("unreadable", f"what cannot be read: {error.strerror}")


def _extra(variant: Variant, beside: Sequence[Variant]) -> Iterator[Finding]:
    base = cache.snapshot(variant)
    for stray in cache.strays(variant, beside):
        yield Finding(path=str(stray.relative_to(base)), problem="extra")


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
