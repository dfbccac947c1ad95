"""Everything of ours on this disk that nothing needs any more, and what it takes to know that.

Needed is what the last locks of every project name, what is deployed, and what this ownweights' engines run in.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec
import psutil

from deploy import environment, flock, lockfile, paths, prepare
from deploy.changes import history
from deploy.engine import Engine
from deploy.lockfile import Lock, Variant
from deploy.plan import ModelPlan
from deploy.soundness import SHA256
from deploy.weights import freeing, gc
from deploy.weights.freeing import Freeable, folders

ENVIRONMENT = re.compile(rf"[\w.]+-(gpu|cpu)-[0-9a-f]{{12}}({re.escape(environment.PARTIAL)}\d+)?")
CACHED = ("weights", "unfinished", "incomplete")


def find(engines: tuple[Engine, ...], *, keep: int, here: Path, incomplete: bool = False) -> tuple[Freeable, ...]:
    """What can go. ``keep``: so many different locks of each project count; ``here`` is a folder that may be one.

    Raises LockError where a lock cannot be read: what it protects is not known then.
    """
    deployed = prepare.read().plan.models if paths.deployment_file().exists() else ()
    locks = (*history.kept(keep), *_current(here))
    variants = [variant for lock in locks for model in lock.models for variant in model.variants]
    variants += [planned.launch.variant for planned in deployed]
    why = f"in none of the last {keep} locks of any project"
    return (
        *gc.find(gc.wanted(variants), why, incomplete=incomplete),
        *_wheels(variants, why),
        *_environments(engines, deployed),
        *_locks(keep),
    )


def free(shown: Iterable[Freeable], again: Callable[[], Iterable[Freeable]], keep: int) -> int:
    """Remove what was shown and still can go; the bytes of disk that became free.

    ``again`` looks with the locks held: since it was shown, a deploy or a pull may have come to need some of it. A pull
    takes no deploy lock, but what it has found complete must stay so until it has said it.
    """
    with flock.held(paths.deploy_lock_file(), waiting="a deploy is running: waiting for it") as file:
        file.truncate(0)
        file.write(f"pid {os.getpid()}, which frees room".encode())
        with flock.held(paths.weights_lock_file(), waiting="weights are being fetched: waiting until they are here"):
            now = {item.key: item for item in again()}
            history.trim(keep)
            return sum(_free(item, now[item.key]) for item in shown if item.key in now)


def _free(shown: Freeable, now: Freeable) -> int:
    seen = frozenset(shown.paths)
    item = msgspec.structs.replace(now, paths=tuple(path for path in now.paths if path in seen))
    freed = freeing.free(item)
    if item.kind in CACHED:
        gc.tidy(item)
    return freed


def _current(here: Path) -> Iterator[Lock]:
    """The locks that lie in the projects' folders now: version control may have put others there."""
    folders = {known.folder for known in history.projects()} | {str(here)}
    for path in (Path(folder, lockfile.FILE) for folder in sorted(folders)):
        if path.exists():
            yield lockfile.read(path)


def _wheels(variants: Iterable[Variant], why: str) -> Iterator[Freeable]:
    """Of those that a lock names, only what pip had not finished: it begins again anyway."""
    named = {wheel.sha256 for variant in variants for place in variant.places for wheel in place.wheels}
    for folder in folders(paths.wheels_dir()):
        lock = folder / "lock"
        going = folder / "scratch" if folder.name in named else folder
        if SHA256.fullmatch(folder.name) and going.exists() and flock.idle(lock):
            reason = "unfinished by pip" if folder.name in named else why
            yield _whole("wheel", going, reason, guard=lock)


def _environments(engines: tuple[Engine, ...], deployed: Iterable[ModelPlan]) -> Iterator[Freeable]:
    current = {environment.folder(engine) for engine in engines}
    current |= {Path(planned.launch.environment) for planned in deployed}
    running = _command_lines()
    lock = paths.environments_dir() / ".lock"
    for home in folders(paths.environments_dir()):
        if not ENVIRONMENT.fullmatch(home.name) or home in current or f"{home}/" in running or not flock.idle(lock):
            continue
        partial = environment.PARTIAL in home.name
        why = "an install that did not end" if partial else "of another ownweights or Python, and not deployed"
        # The record first: without it, what a crash leaves is no environment.
        yield _whole("environment", home, why, guard=lock, first=(home / environment.RECORD,))


def _locks(keep: int) -> Iterator[Freeable]:
    counted = {digest for known in history.projects() for digest in known.last(keep)}
    going = [path for path in sorted(paths.locks_dir().glob("*.lock")) if path.stem not in counted]
    if going:
        yield Freeable(
            kind="lock",
            path=str(paths.locks_dir()),
            why=f"not among the last {keep} of any project",
            frees_bytes=sum(map(freeing.room, going)),
            paths=tuple(map(str, going)),
            guard=str(history.guard()),
        )


def _whole(kind: freeing.Kind, folder: Path, why: str, *, guard: Path, first: tuple[Path, ...] = ()) -> Freeable:
    going = (*first, folder)
    return Freeable(
        kind=kind,
        path=str(folder),
        why=why,
        frees_bytes=freeing.room(folder),
        paths=tuple(map(str, going)),
        guard=str(guard),
    )


def _command_lines() -> str:
    """Of all processes: an engine that an earlier deployment started runs from its environment still."""
    return "\n".join(" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"]))
