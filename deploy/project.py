"""A folder with a models.toml: its wishes, its lock, and whether one still fits the other."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec

from deploy import __version__, atomic, config, flock, lockfile, output
from deploy.changes import history
from deploy.config import Config
from deploy.engine import Engine
from deploy.errors import LockError
from deploy.hardware import Hardware
from deploy.lockfile import EnginePin, Lock, Model


@dataclass(frozen=True)
class Project:
    """``folder`` is where models.toml lies and models.lock is written."""

    folder: Path
    config: Config

    @property
    def lock_path(self) -> Path:
        return self.folder / lockfile.FILE

    def inputs(self, hardware: Hardware) -> str:
        """Digest of everything a deployment is made from: the same again means there is nothing to do."""
        digest = hashlib.sha256(f"{__version__}\0{hardware.fingerprint}\0".encode())
        for path in (self.folder / config.FILE, self.lock_path):
            digest.update(path.read_bytes() if path.exists() else b"")
        return digest.hexdigest()

    @contextmanager
    def changing(self) -> Iterator[None]:
        """One process at a time, from reading the lock to writing it: of two upgrades at once both are kept."""
        path = history.list_file(self.folder).with_suffix(".flock")
        with ExitStack() as stack:
            # Without a state dir that can be written there is no history either, and its warning says so.
            with suppress(OSError):
                stack.enter_context(
                    flock.held(path, waiting=f"another ownweights is changing {self.lock_path}: waiting")
                )
            yield

    def lock(
        self,
        hardware: Hardware,
        engines: tuple[Engine, ...],
        *,
        locked: bool = False,
        only: frozenset[str] = frozenset(),
        upgrade: frozenset[str] = frozenset(),
        accept_new_owner: bool = False,
    ) -> Lock:
        """The lock that fits models.toml: the one on disk, or a newly resolved one (not written here).

        With ``locked`` nothing is resolved: a stale lock is a LockError that says what changed. ``only`` these
        models are resolved, and those in ``upgrade``; of the others what is locked stays as it is.
        """
        from deploy.planning import auto
        from deploy.resolving import locking

        wanted = self._wanted(only and only | upgrade)
        previous = lockfile.read(self.lock_path) if self.lock_path.exists() or locked else None
        if previous is not None and not upgrade:
            changes = stale(previous, self.config, engines)
            if not changes:
                return previous
            if locked:
                listed = "; ".join(changes)
                raise LockError(f"the lock is stale: {listed}", where=str(self.lock_path), hint="ownweights lock")
        made = locking.lock(
            wanted,
            previous=previous,
            engines=engines,
            choose=partial(auto.choose, hardware, engines, insisted=self.config.engines),
            base=self.folder,
            upgrade=upgrade,
            accept_new_owner=accept_new_owner,
        )
        return joined(made, previous, self.config)

    def derived(self, hardware: Hardware, engines: tuple[Engine, ...], *, only: frozenset[str] = frozenset()) -> Lock:
        """The lock on disk, derived again at its own commits: the same, unless it was edited or is stale.

        ``only`` these models; the rest of the lock, and what it was made from, is then taken as it is.
        """
        from deploy.planning import auto
        from deploy.resolving import locking

        previous = lockfile.read(self.lock_path)
        made = locking.lock(
            self._wanted(only),
            previous=previous,
            engines=engines,
            choose=partial(auto.choose, hardware, engines, insisted=self.config.engines),
            base=self.folder,
            at_locked=True,
        )
        found = joined(made, previous, self.config)
        return msgspec.structs.replace(found, inputs=previous.inputs) if only else found

    def upstream(self, model: Model) -> Model:
        """A locked model as its source would be locked now.

        Raises LockError where models.toml says otherwise, and where what is there now cannot be known.
        """
        from deploy.resolving import locking

        wanted = self._wanted(frozenset((model.name,)))
        if model.inputs != lockfile.wish_digest(wanted.model[0]):
            raise LockError(
                f"model `{model.name}` is locked for another source than models.toml names",
                where=str(self.lock_path),
                hint=f"ownweights lock {model.name}",
            )
        made = locking.lock(
            wanted,
            previous=lockfile.read(self.lock_path),
            engines=(),
            # What `auto` chose is what is looked at: whether it would choose another one is no drift.
            choose=lambda _: locking.kept(model),
            base=self.folder,
            upgrade=frozenset((model.name,)),
            comparing=True,
        )
        return made.models[0]

    def save(self, lock: Lock, *, reason: str = "lock") -> bool:
        """Write it, unless the same bytes lie there already; True when something changed. The history knows why."""
        text = lockfile.write(lock).encode()
        if self.lock_path.exists():
            history.notice(self.folder)
            if self.lock_path.read_bytes() == text:
                return False
        atomic.write(self.lock_path, text)
        history.keep(self.folder, lock, reason)
        output.say(f"locked: {self.lock_path}")
        return True

    def _wanted(self, only: frozenset[str]) -> Config:
        """models.toml with these models alone, or as it is where none is named."""
        known = [wish.name for wish in self.config.model]
        if unknown := only.difference(known):
            raise LockError(
                f"no model `{min(unknown)}` in models.toml",
                where=str(self.folder / config.FILE),
                hint=f"wished for: {', '.join(known)}",
            )
        chosen = tuple(wish for wish in self.config.model if not only or wish.name in only)
        return msgspec.structs.replace(self.config, model=chosen)


def find(folder: Path) -> Project:
    """The project in a folder. Raises ConfigError where there is none."""
    return Project(folder=folder, config=config.read(folder / config.FILE))


def stale(lock: Lock, wanted: Config, engines: tuple[Engine, ...]) -> list[str]:
    """What of the lock no longer fits models.toml or this ownweights; empty: it is current."""
    changes = []
    if lock.inputs != lockfile.inputs_digest(wanted):
        changes.append("models.toml asks for other models, sources or precisions")
    pinned = {(pin.name, pin.device): pin for pin in lock.engines}
    for engine in engines:
        pin = engine_pin(engine)
        if pinned.get((engine.name, engine.device)) != pin:
            changes.append(f"this ownweights brings {engine.name} {engine.version} for {engine.device}")
    return changes


def joined(made: Lock, previous: Lock | None, wanted: Config) -> Lock:
    """A lock of some models, and of the others that are wished for what was locked before.

    It is current only if all of it fits: its ``inputs`` are those of the wishes that do.
    """
    models = {model.name: model for model in (*(previous.models if previous else ()), *made.models)}
    wishes = sorted(wanted.model, key=lambda wish: wish.name)
    kept = [(models[wish.name], wish) for wish in wishes if wish.name in models]
    fitting = tuple(wish for model, wish in kept if model.inputs == lockfile.wish_digest(wish))
    return msgspec.structs.replace(
        made,
        models=tuple(msgspec.structs.replace(model, aliases=tuple(sorted(wish.aliases))) for model, wish in kept),
        inputs=lockfile.inputs_digest(msgspec.structs.replace(wanted, model=fitting)),
    )


def engine_pin(engine: Engine) -> EnginePin:
    digest = hashlib.sha256(engine.requirements.read_bytes()).hexdigest()
    return EnginePin(name=engine.name, device=engine.device, version=engine.version, requirements=f"sha256:{digest}")
