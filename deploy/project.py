"""A folder with a models.toml: its wishes, its lock, and whether one still fits the other."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from deploy import __version__, atomic, config, lockfile, output
from deploy.config import Config
from deploy.engine import Engine
from deploy.errors import LockError
from deploy.hardware import Hardware
from deploy.lockfile import EnginePin, Lock


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

    def lock(
        self,
        hardware: Hardware,
        engines: tuple[Engine, ...],
        *,
        locked: bool = False,
        upgrade: frozenset[str] = frozenset(),
    ) -> Lock:
        """The lock that fits models.toml: the one on disk, or a newly resolved one (not written here).

        With ``locked`` nothing is resolved: a stale lock is a LockError that says what changed.
        """
        from deploy import auto, locking

        previous = lockfile.read(self.lock_path) if self.lock_path.exists() or locked else None
        if previous is not None and not upgrade:
            changes = stale(previous, self.config, engines)
            if not changes:
                return previous
            if locked:
                listed = "; ".join(changes)
                raise LockError(f"the lock is stale: {listed}", where=str(self.lock_path), hint="ownweights lock")
        return locking.lock(
            self.config,
            previous=previous,
            engines=engines,
            choose=partial(auto.choose, hardware),
            formats=formats(self.config, hardware),
            base=self.folder,
            upgrade=upgrade,
        )

    def save(self, lock: Lock) -> bool:
        """Write it, unless the same bytes lie there already; True when something changed."""
        text = lockfile.write(lock).encode()
        if self.lock_path.exists() and self.lock_path.read_bytes() == text:
            return False
        atomic.write(self.lock_path, text)
        output.say(f"locked: {self.lock_path}")
        return True


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


def engine_pin(engine: Engine) -> EnginePin:
    digest = hashlib.sha256(engine.requirements.read_bytes()).hexdigest()
    return EnginePin(name=engine.name, device=engine.device, version=engine.version, requirements=f"sha256:{digest}")


def formats(wanted: Config, hardware: Hardware) -> tuple[str, ...]:
    """Which formats to lock: gguf for a CPU, safetensors where vLLM may run."""
    insists = wanted.engines.cpu == "vllm" or any(wish.engine == "vllm" for wish in wanted.model)
    if insists or (hardware.gpus and wanted.engines.gpu != "none"):
        return ("safetensors", "gguf")
    return ("gguf",)
