"""A bundle is written: lock, wishes, wheels and verified weights, every byte hashed on its way into the archive.

All sizes and hashes are known before the first byte, so the same deployment is the same archive wherever it is made,
and an export that was interrupted goes on where it ended.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from deploy import bundle, digests, disk, flock, lockfile, output
from deploy.bundle import Member, Slot, pieces
from deploy.bundle.pieces import CHUNK_BYTES, Reading, Writing
from deploy.errors import UserError, WeightsError
from deploy.lockfile import Lock, Variant
from deploy.weights import cache

if TYPE_CHECKING:
    from rich.progress import Progress


class Source(NamedTuple):
    """Where a member's content is: on disk, or here."""

    member: Member
    content: Path | bytes


class Packed(msgspec.Struct, frozen=True, kw_only=True):
    """A finished bundle. ``manifest`` is the sha256 of its manifest, which names all of it."""

    files: tuple[str, ...]
    size: int
    manifest: str
    members: int
    resumed_bytes: int = 0
    """Found here from an interrupted export."""


def contents(
    lock: Lock,
    wishes: bytes,
    earlier: Iterable[Lock],
    variants: Iterable[Variant],
    *,
    core: Iterable[Path] = (),
    wheels: Iterable[Path] = (),
) -> tuple[Source, ...]:
    """What goes into the bundle, in the order of the archive. ``wishes`` is models.toml; ``earlier`` newest first.

    Wheels are hashed here.
    """
    texts = (lockfile.write(kept).encode() for kept in reversed(tuple(earlier)))
    return (
        _text(bundle.LOCK, lockfile.write(lock).encode()),
        _text(bundle.WISHES, wishes),
        *(_text(f"{bundle.HISTORY}{digests.of_bytes(text)}.lock", text) for text in texts),
        *(_wheel(bundle.CORE, path) for path in core),
        *(_wheel(bundle.WHEELS, path) for path in wheels),
        *_weights(variants),
    )


def pack(
    base: Path,
    lock: Lock,
    sources: tuple[Source, ...],
    *,
    piece: int | None = None,
    progress: Progress | None = None,
    free: Callable[[Path], int] = disk.free_bytes,
) -> Packed:
    """Write the bundle, whole or in pieces of ``piece`` bytes, or go on with it.

    Raises UserError for too little room or other files of that name, WeightsError where a file's bytes are not
    those that were verified.
    """
    text = bundle.encode(bundle.manifest(lock.digest, (source.member for source in sources)))
    slots = bundle.slots(text, bundle.decode(text, str(base)))
    contents = [text, *(source.content for source in sources)]
    beginning = pieces.first(base, piece)
    with flock.held(pieces.part(beginning), waiting=f"`{base}` is being written by another ownweights: waiting"):
        if beginning.exists():
            pieces.part(beginning).unlink()
            return _there(beginning, base, slots, text)
        try:
            archive = Writing(base, piece, bundle.size(slots))
            if b"".join(archive.read(0, slots[0].end)) != slots[0].header + text + slots[0].padding:
                archive.cut(0)
            archive.cut(archive.length)
            resumed = archive.length
            disk.require({base.absolute(): bundle.size(slots) - resumed}, "df -h  # then export to a larger disk", free)
            _fill(archive, slots, contents, progress)
            archive.finish()
        finally:
            _drop_empty(pieces.part(beginning))
    return _packed(archive.paths, slots, resumed)


def _fill(archive: Writing, slots: tuple[Slot, ...], contents: list[Path | bytes], progress: Progress | None) -> None:
    task = progress.add_task("bundle", total=bundle.size(slots), completed=archive.length) if progress else None
    for slot, content in zip(slots, contents, strict=True):
        # What lies before the end was flushed to the disk before anything was written behind it.
        if archive.length >= slot.end:
            continue
        for position in _member(archive, slot, content):
            if progress and task is not None:
                progress.update(task, completed=position)
        archive.sync(slot.begin)
    archive.cut(slots[-1].end)
    archive.append(bundle.END)
    archive.sync(slots[-1].end)


def _member(archive: Writing, slot: Slot, content: Path | bytes) -> Iterator[int]:
    """Yields how far the archive reaches now. What lies of it from before is hashed, and thrown away if it is wrong."""
    kept = min(archive.length, slot.stop) - slot.start
    if kept <= 0 or b"".join(archive.read(slot.begin, slot.start)) != slot.header:
        archive.cut(slot.begin)
        archive.append(slot.header)
        kept = 0
    archive.cut(slot.start + kept)
    digest = hashlib.sha256()
    for chunk in archive.read(slot.start, slot.start + kept):
        digest.update(chunk)
    for chunk in _chunks(content, kept, slot.member.size):
        digest.update(chunk)
        archive.append(chunk)
        yield archive.length
    if archive.length == slot.stop and digest.hexdigest() == slot.member.sha256:
        archive.append(slot.padding)
        return
    found = f"{archive.length - slot.start} bytes, sha256 {digest.hexdigest()}"
    archive.cut(slot.begin)
    if kept:
        yield from _member(archive, slot, content)
        return
    raise WeightsError(
        f"`{slot.member.name}` changed while it was exported: "
        f"expected {slot.member.size} bytes, sha256 {slot.member.sha256}, found {found}",
        where=str(content) if isinstance(content, Path) else None,
        hint="ownweights verify --full  # then export again: it goes on here",
    )


def _chunks(content: Path | bytes, start: int, stop: int) -> Iterator[bytes]:
    """At most up to ``stop``: a file that has grown is found by its hash, or by its next user."""
    if isinstance(content, bytes):
        yield content[start:stop]
        return
    with content.open("rb", buffering=0) as file:
        file.seek(start)
        while start < stop and (chunk := file.read(min(CHUNK_BYTES, stop - start))):
            start += len(chunk)
            yield chunk


def _there(beginning: Path, base: Path, slots: tuple[Slot, ...], text: bytes) -> Packed:
    """An export that is done already. Anything else of that name is the user's to remove."""
    found = Reading(beginning)
    same = b"".join(found.read(0, slots[0].stop)) == slots[0].header + text
    if not same or found.gaps(bundle.size(slots)) or found.length > bundle.size(slots):
        raise UserError(
            "another file lies there, or a bundle of another state",
            where=str(beginning),
            hint=f"rm '{base}'*  # or export to another name",
        )
    output.say(f"`{base}` is this bundle already")
    return _packed(found.paths, slots, bundle.size(slots))


def _drop_empty(part: Path) -> None:
    if part.exists() and not part.stat().st_size:
        part.unlink()


def _packed(paths: tuple[Path, ...], slots: tuple[Slot, ...], resumed: int) -> Packed:
    return Packed(
        files=tuple(map(str, paths)),
        size=bundle.size(slots),
        manifest=slots[0].member.sha256,
        members=len(slots) - 1,
        resumed_bytes=resumed,
    )


def _text(name: str, content: bytes) -> Source:
    return Source(Member(name=name, size=len(content), sha256=digests.of_bytes(content)), content)


def _wheel(folder: str, path: Path) -> Source:
    digest = digests.of_file(path)
    return Source(Member(name=f"{folder}{path.name}", size=path.stat().st_size, sha256=digest), path)


def _weights(variants: Iterable[Variant]) -> list[Source]:
    """Each blob once, small ones first: what decides whether the rest is worth reading comes early."""
    sources = {}
    for variant in variants:
        for file in variant.files:
            name = bundle.blob(variant, file)
            sources[name] = Source(Member(name=name, size=file.size, sha256=file.sha256), cache.blob(variant, file))
    return sorted(sources.values(), key=lambda source: (source.member.size, source.member.name))
