"""The locks that a project had: kept whole in the state dir, each under its own sha256, listed per project folder.

<state>/locks/<sha256>.lock     a lock's canonical text, shared by all projects that had it
        history/<digest>.json   one project's list, oldest first, named by its folder's absolute path
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from itertools import groupby
from pathlib import Path

import msgspec

from deploy import atomic, flock, lockfile, output, paths
from deploy.errors import LockError
from deploy.lockfile import Lock
from deploy.weights import cache

KEPT = 3
"""The weights of so many of a project's locks survive `ownweights gc`."""
FOUND = "found in the folder"
"""The reason of a lock that came by other ways than ours: version control, a copy."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """That a project had a lock from then on."""

    digest: str
    """sha256 of the lock's text."""
    at: int
    """Unix seconds."""
    reason: str
    inputs: str
    """The lock's own: which models.toml it was made from."""


class Revision(msgspec.Struct, frozen=True, kw_only=True):
    """Which bytes a lock named for a model. ``commit`` has 12 digits; of a file of this machine it is its tree's."""

    name: str
    variant: str
    commit: str


class Past(Entry, frozen=True, kw_only=True):
    """An entry with its number, 0 being the newest, and what the lock held. ``models`` is None where it is gone."""

    number: int
    models: tuple[Revision, ...] | None


class History(msgspec.Struct, frozen=True, kw_only=True):
    """One project's locks, oldest first."""

    folder: str
    entries: tuple[Entry, ...] = ()

    def last(self, count: int) -> tuple[str, ...]:
        """Digests of the last so many different locks, newest first."""
        return tuple(dict.fromkeys(entry.digest for entry in reversed(self.entries)))[:count]


def keep(folder: Path, lock: Lock, reason: str) -> None:
    """Remember that this is the project's lock now. Nothing where it is the newest one already.

    Not being able to is a warning: the lock itself is the project's, not the state dir's.
    """
    try:
        _add(folder, lock, reason)
    except LockError as error:
        _warn_of_gap(reason, str(error))


def notice(folder: Path) -> None:
    """Keep the lock that lies in the folder now, if it is a sound one: we need not have put it there."""
    path = folder / lockfile.FILE
    with contextlib.suppress(LockError):
        _add(folder, lockfile.read(path), FOUND)


def entries(folder: Path) -> tuple[Entry, ...]:
    """Newest first: number 0 is the lock of now."""
    return _read(list_file(folder), folder).entries[::-1]


def past(folder: Path) -> tuple[Past, ...]:
    """The same with what each lock held. One that cannot be read is a warning."""
    return tuple(
        Past(number=number, models=_revisions(entry.digest), **msgspec.structs.asdict(entry))
        for number, entry in enumerate(entries(folder))
    )


def read(digest: str) -> Lock:
    """A kept lock. Raises LockError where it is gone, damaged or of an unknown version."""
    path = lock_file(digest)
    try:
        text = path.read_bytes()
    except OSError as error:
        raise LockError(f"the kept lock cannot be read: {error.strerror}", where=str(path)) from error
    if (found := hashlib.sha256(text).hexdigest()) != digest:
        raise LockError(f"the kept lock is damaged: its sha256 is {found}", where=str(path), hint=f"rm '{path}'")
    try:
        return lockfile.parse(text.decode(), where=str(path))
    except LockError as error:
        # It is nobody's models.lock: only forgetting it helps.
        raise LockError(error.message, where=error.where, hint=f"rm '{path}'") from error


def earlier(folder: Path, lock: Lock) -> tuple[Lock, ...]:
    """The other locks that are kept of a project, newest first. One that cannot be read any more is a warning."""
    found = []
    for digest in dict.fromkeys(entry.digest for entry in entries(folder)):
        try:
            found.append(read(digest))
        except LockError as error:
            output.warn(f"an earlier lock is left out: {error}")
    return tuple(kept for kept in found if kept.digest != lock.digest)


def projects() -> tuple[History, ...]:
    """Every project that ever had a lock here."""
    return tuple(_read(path) for path in sorted(paths.history_dir().glob("*.json")))


def kept(count: int = KEPT) -> tuple[Lock, ...]:
    """The last ``count`` different locks of every project. One that someone removed counts no more."""
    digests = dict.fromkeys(digest for known in projects() for digest in known.last(count))
    return tuple(read(digest) for digest in digests if lock_file(digest).exists())


def lock_file(digest: str) -> Path:
    """Where a kept lock lies."""
    return paths.locks_dir() / f"{digest}.lock"


def list_file(folder: Path) -> Path:
    """Where a project's list lies."""
    name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:32]
    return paths.history_dir() / f"{name}.json"


def guard() -> Path:
    """Held with flock by whoever changes a list or a kept lock."""
    return paths.history_dir() / ".flock"


def trim(count: int) -> None:
    """Forget all but the last ``count`` different locks of each project. The locks themselves are not touched."""
    if not paths.history_dir().exists():
        return
    with flock.held(guard()):
        for known in projects():
            stay = known.last(count)
            left = [entry for entry in known.entries if entry.digest in stay]
            # What lay between two equal ones may have gone.
            runs = groupby(left, key=lambda entry: entry.digest)
            if len(left) < len(known.entries):
                _write(msgspec.structs.replace(known, entries=tuple(next(run) for _, run in runs)))


def _add(folder: Path, lock: Lock, reason: str) -> None:
    """Raises LockError where the list is damaged."""
    entry = Entry(digest=lock.digest, at=int(time.time()), reason=reason, inputs=lock.inputs)
    try:
        with flock.held(guard()):
            known = _read(list_file(folder), folder)
            _keep(entry.digest, lock)
            if not known.entries or known.entries[-1].digest != entry.digest:
                _write(msgspec.structs.replace(known, entries=(*known.entries, entry)))
    except OSError as error:
        _warn_of_gap(reason, f"{error.strerror} ({error.filename})")


def _warn_of_gap(reason: str, why: str) -> None:
    output.warn(f"`{reason}` is not in the history and cannot be rolled back to: {why}", about="history")


def _write(known: History) -> None:
    atomic.write(list_file(Path(known.folder)), msgspec.json.format(msgspec.json.encode(known), indent=1))


def _revisions(digest: str) -> tuple[Revision, ...] | None:
    try:
        lock = read(digest)
    except LockError as error:
        output.warn(str(error))
        return None
    return tuple(
        Revision(name=model.name, variant=variant.key, commit=cache.commit(variant)[:12])
        for model in lock.models
        for variant in model.variants
    )


def _keep(digest: str, lock: Lock) -> None:
    text = lockfile.write(lock).encode()
    path = lock_file(digest)
    if not path.exists() or path.read_bytes() != text:
        atomic.write(path, text)


def _read(path: Path, folder: Path | None = None) -> History:
    """Raises LockError for a damaged list: an empty one would let `gc` take what it protects."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=History)
    except (FileNotFoundError, NotADirectoryError):
        return History(folder=str((folder or path).resolve()))
    except (ValueError, msgspec.MsgspecError) as error:
        raise LockError(f"the list of kept locks is damaged: {error}", where=str(path), hint=f"rm '{path}'") from error
