"""Back to a lock that the project had: one that fits models.toml as it is now, because `deploy` keeps no other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from deploy import atomic, lockfile, output
from deploy.changes import history
from deploy.changes.history import Entry
from deploy.config import Config
from deploy.engine import Engine
from deploy.errors import LockError, UserError
from deploy.lockfile import EnginePin, Lock
from deploy.project import Project, engine_pin


def choose(project: Project, number: int, engines: tuple[Engine, ...]) -> tuple[Entry, Lock]:
    """What was ``number`` changes ago, and its lock with the engines of now. Nothing is written.

    Raises UserError where there is no such number, LockError where it is of another models.toml or cannot be read.
    """
    known = history.entries(project.folder)
    if number >= len(known):
        there = f"0 to {len(known) - 1}" if known else "none"
        raise UserError(f"no lock {number} in the history: there is {there}", hint="ownweights history")
    lock = history.read(known[number].digest)
    if changes := differences(lock, project.config):
        listed = "; ".join(changes)
        raise LockError(
            f"lock {number} was made from another models.toml: {listed}",
            where=str(history.lock_file(known[number].digest)),
            hint=f"git log -p models.toml  # put it back as it was then, and `ownweights rollback {number}` again",
        )
    return known[number], refitted(lock, tuple(map(engine_pin, engines)))


def differences(lock: Lock, wanted: Config) -> list[str]:
    """What a lock was made for and models.toml no longer asks for, or the other way round; empty: it fits."""
    if lock.inputs == lockfile.inputs_digest(wanted):
        return []
    then, now = {model.name: model for model in lock.models}, {wish.name: wish for wish in wanted.model}
    changes = [f"`{name}` is not in models.toml now" for name in then.keys() - now.keys()]
    changes += [f"`{name}` was not in it then" for name in now.keys() - then.keys()]
    for name in then.keys() & now.keys():
        if then[name].requested != now[name].source:
            changes.append(f"`{name}` was `{then[name].requested}` and is `{now[name].source}` now")
        elif then[name].inputs != lockfile.wish_digest(now[name]) or set(then[name].aliases) != set(now[name].aliases):
            changes.append(f"`{name}` had other keys")
    return sorted(changes) or ["another version of ownweights made it"]


def refitted(lock: Lock, pins: tuple[EnginePin, ...]) -> Lock:
    """The same models with these engines: others cannot be had without the ownweights that brought them. Said."""
    then = {(pin.name, pin.device): pin for pin in lock.engines}
    for pin in pins:
        was = then.get((pin.name, pin.device))
        if was != pin:
            version = f"{was.version} was locked" if was else "it was not locked"
            output.say(f"{pin.name} for {pin.device} stays at {pin.version} of this ownweights, although {version}")
    same = set(pins) == set(lock.engines)
    return lock if same else msgspec.structs.replace(lock, engines=pins)


@contextmanager
def swapped(project: Project, lock: Lock, reason: str) -> Iterator[None]:
    """The project has this lock from now on. If the block fails, it has the one from before again.

    So models.lock never names a deployment that was tried and did not come up, and the next `deploy`, whoever
    calls it, follows what was known to work.
    """
    path, text = project.lock_path, lockfile.write(lock).encode()
    with project.changing():
        before = path.read_bytes() if path.exists() else None
        atomic.write(path, text)
        history.keep(project.folder, lock, reason)
    try:
        yield
    except BaseException:
        if before is None:
            path.unlink()
        else:
            atomic.write(path, before)
        history.notice(project.folder)
        output.warn("the rollback failed: models.lock is as it was before, and `ownweights deploy` follows that")
        raise
