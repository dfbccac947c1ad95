"""One blob of the cache, made whole from its places: what one of them began another one continues.

Nothing gets its name before it hashes to it.
"""

from __future__ import annotations

import errno
import os
import shlex
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from deploy import flock, output, paths
from deploy.errors import PlaceError, UserError, WeightsError
from deploy.lockfile import File, Variant
from deploy.stop import Stop
from deploy.weights import cache, places, verify
from deploy.weights.meter import Meter, Meters
from deploy.weights.part import CHUNK_BYTES, Part, Shared
from deploy.weights.places import Only, Place

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
SHARED_TRIES = 3
CACHE = "cache"
"""The place of a file that was there already."""


class Pulled(msgspec.Struct, frozen=True, kw_only=True):
    """One file that is there now. ``path`` is its name in the snapshot."""

    path: str
    place: str
    fetched_bytes: int = 0
    resumed_bytes: int = 0
    """Of this file, found here from an interrupted pull."""


def entry(variant: Variant, file: File) -> str:
    """The file's name in the snapshot."""
    return str(cache.snapshot(variant) / file.path)


def link(variant: Variant, file: File, only: Only | None, stop: Stop) -> Pulled:
    """A file of this machine stays where it is: its blob is a link to it. Raises WeightsError for a changed one.

    One that a bundle brought from another machine lies in the cache itself.
    """
    source, blob = cache.source(variant, file), cache.blob(variant, file)
    if not blob.is_symlink() and verify.difference(blob, file, reach=lambda _: stop.check()) is None:
        return Pulled(path=entry(variant, file), place=CACHE)
    if source is None or only not in (None, Only("file")):
        raise _no_place(file, only)
    if wrong := verify.difference(source, file, reach=lambda _: stop.check()):
        raise WeightsError(
            f"not the file that was locked: expected {file.size} bytes, sha256 {file.sha256}, found {wrong}",
            where=str(source),
            hint="ownweights lock  # if it was changed on purpose",
        )
    cache.symlink(blob, source)
    return Pulled(path=entry(variant, file), place=f"file {source}")


def fetch(variant: Variant, file: File, only: Only | None, meters: Meters, stop: Stop) -> Pulled:
    """Have it, from the cache or the first place that gives it. What arrived is kept, whatever is raised.

    Raises WeightsError where a place gave other bytes than the locked ones and no other place could help; PlaceError
    where no place could give them; UserError for a full disk, and for a file in its place that cannot be read; Stopped.
    """
    for _ in range(SHARED_TRIES - 1):
        with suppress(Shared):
            return _fetch(variant, file, only, meters, stop)
        stop.check()
    return _fetch(variant, file, only, meters, stop)


def _fetch(variant: Variant, file: File, only: Only | None, meters: Meters, stop: Stop) -> Pulled:
    blob, unfinished = cache.blob(variant, file), cache.part(variant, file)
    here = Pulled(path=entry(variant, file), place=CACHE)

    def difference() -> str | None:
        return verify.difference(blob, file, reach=lambda _: stop.check())

    if difference() is None:
        return here
    with flock.held(unfinished, waiting=f"`{file.path}` is being fetched by another ownweights: waiting") as raw:
        stop.check()
        wrong = difference()
        if wrong is None:
            unfinished.unlink(missing_ok=True)
            return here
        if os.path.lexists(blob):
            _refuse_unread(blob, file, stop)
            output.warn(f"`{file.path}` in the cache is {wrong}, not the locked sha256 {file.sha256}: removed")
            blob.unlink()
        part = Part(raw, file, stop)
        try:
            with meters.file(file, part.count) as meter:
                place = _Filling(part, variant, file, meter, stop).from_any(only)
        finally:
            if not part.count and file.size and part.is_ours():
                unfinished.unlink(missing_ok=True)
        with _room(part, file):
            sealed = part.seal(blob)
        verify.record(blob, file.sha256, sealed, place=place)
    kept = f", {output.size(part.resumed)} of it from an earlier pull" if part.resumed else ""
    output.say(f"`{file.path}`: {output.size(file.size)} from {place}{kept}, sha256 {file.sha256[:12]}")
    return msgspec.structs.replace(
        here, place=place, fetched_bytes=file.size - part.resumed, resumed_bytes=part.resumed
    )


@dataclass(frozen=True)
class _Filling:
    """A part on its way to be whole."""

    part: Part
    variant: Variant
    file: File
    meter: Meter
    stop: Stop

    def from_any(self, only: Only | None) -> str:
        """Complete it from the first place that can; that place's name."""
        if self.part.mismatch() is None:
            return CACHE
        path = self.file.path
        failures: list[tuple[str, UserError]] = []
        for place in places.of(self.variant, self.file, only, self.meter.reach, self.stop):
            if failures:
                name, error = failures[-1]
                # Other bytes than the locked ones are always loud; a place out of reach is so once.
                about = name.split()[0] if isinstance(error, PlaceError) else None
                output.warn(f"`{path}` from {name}: {error}; now from {place.name}", about=about)
            try:
                self.from_one(place)
            except (PlaceError, WeightsError) as error:
                failures.append((place.name, error))
            else:
                return place.name
        raise _nowhere(self.file, failures) if failures else _no_place(self.file, only)

    def from_one(self, place: Place) -> None:
        """Raises PlaceError, and keeps what it got, or WeightsError, and keeps nothing.

        Whole and wrong may be an accident on the way, so it is fetched once more; twice, it is what this place has.
        """
        begun, path = self.part.count, self.file.path
        wrong = self._once(place)
        if wrong and begun:
            # Whose bytes are wrong is not known: this does not count against the place.
            output.warn(f"`{path}` begun earlier and ended by {place.name}: {wrong}; from the start again")
            wrong = self._once(place)
        if wrong:
            output.warn(f"`{path}` from {place.name}: {wrong}; once more")
            wrong = self._once(place)
        if wrong:
            raise WeightsError(wrong)

    def _once(self, place: Place) -> str | None:
        """How what is there now is wrong, in which case it is thrown away; None: it is whole and right."""
        with closing(place.open(self.variant, self.file, self.part.count)) as chunks:
            for chunk in chunks:
                self.stop.check()
                with _room(self.part, self.file):
                    self.part.append(chunk)
                self.meter.reach(self.part.count)
                if self.part.count > self.file.size:
                    break
        if self.part.count < self.file.size:
            raise PlaceError(f"ended after {self.part.count} of {self.file.size} bytes")
        wrong = self.part.mismatch()
        if wrong:
            self.part.restart()
        return wrong


def _refuse_unread(blob: Path, file: File, stop: Stop) -> None:
    """Raises UserError for what may be right, but cannot be read to know. It is not ours to remove."""
    try:
        with blob.open("rb", buffering=0) as content:
            # Of another size it is wrong unread.
            same_size = os.fstat(content.fileno()).st_size == file.size
            while same_size and content.read(CHUNK_BYTES):
                stop.check()
    except FileNotFoundError:
        return
    except OSError as error:
        path = shlex.quote(str(blob))
        remedies = {errno.EACCES: f"sudo chmod a+r {path}", errno.EISDIR: f"rm -r {path}"}
        raise UserError(
            f"`{file.path}` in the cache cannot be read: {error.strerror}",
            where=str(blob),
            hint=remedies.get(error.errno or 0, f"rm {path}  # it is fetched again then"),
        ) from error


@contextmanager
def _room(part: Part, file: File) -> Iterator[None]:
    try:
        yield
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


def _no_place(file: File, only: Only | None) -> PlaceError:
    if only and only.at:
        return PlaceError(f"`{file.path}` cannot come from {only}", hint="ownweights pull")
    kind = f"{only} " if only else ""
    return PlaceError(f"the lock names no {kind}place for `{file.path}`", hint="ownweights pull")
