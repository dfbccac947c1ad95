"""Engines' own environments: made by uv from a hashed requirement set, once per content.

The folder's name holds a digest of all that goes in, so an environment is never changed, only followed by another.
It is built beside and renamed in by the holder of one lock: what lies under its name is whole.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import sys
import time
from pathlib import Path

import msgspec

from deploy import atomic, flock, output, paths
from deploy.engine import Device, Engine
from deploy.errors import InstallError

RECORD = "ownweights.json"
PARTIAL = ".partial-"


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """What was installed, as it was written down when it was complete."""

    engine: str
    device: Device
    version: str
    path: str
    packages: int
    size_bytes: int
    """Of all its files. Those that uv linked from its cache take no room of their own."""
    install_s: float
    """With a cold cache this is mostly the download."""


def folder(engine: Engine) -> Path:
    """Where its environment lies or will lie."""
    content = hashlib.sha256(engine.requirements.read_bytes())
    for path, text in sorted(engine.files.items()):
        content.update(f"\0{path}\0{text}".encode())
    content.update(f"\0{sys.implementation.cache_tag}\0{sys.platform}-{platform.machine()}".encode())
    return paths.environments_dir() / f"{engine.name}-{engine.device}-{content.hexdigest()[:12]}"


def describe(engine: Engine) -> Environment | None:
    """None where it is not installed, or where the Python it was made with is gone."""
    home = folder(engine)
    try:
        found = msgspec.json.decode((home / RECORD).read_bytes(), type=Environment)
    except (OSError, ValueError, msgspec.MsgspecError):
        return None
    return found if (home / "bin" / "python").exists() else None


def install(engine: Engine) -> Path:
    """Make sure that the environment is there. Raises InstallError; then nothing half-made is left.

    A second caller waits for the first, and finds its work done.
    """
    home = folder(engine)
    if describe(engine) is not None:
        return home
    try:
        with flock.held(paths.environments_dir() / ".lock", waiting="another install is running: waiting for it"):
            _sweep()
            if describe(engine) is None:
                _make(engine, home)
    except OSError as error:
        raise InstallError(
            f"the environment of {engine.name} cannot be written: {error.strerror}",
            where=str(error.filename or home),
            hint="export OWNWEIGHTS_HOME=/a/folder/with/room  # moves all of ownweights' own files",
        ) from error
    return home


def _make(engine: Engine, home: Path) -> None:
    partial = home.with_name(f"{home.name}{PARTIAL}{os.getpid()}")
    output.say(f"installing {engine.name} {engine.version} ({engine.device}) into an environment of its own")
    began = time.monotonic()
    try:
        _fill(engine, partial)
        found = Environment(
            engine=engine.name,
            device=engine.device,
            version=engine.version,
            path=str(home),
            packages=len(list(partial.glob("lib/python*/site-packages/*.dist-info"))),
            size_bytes=sum(path.lstat().st_size for path in partial.rglob("*")),
            install_s=round(time.monotonic() - began, 1),
        )
        atomic.write(partial / RECORD, msgspec.json.encode(found))
        # Only one that has lost its Python can lie there: a usable one is never made again.
        shutil.rmtree(home, ignore_errors=True)
        partial.rename(home)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    output.say(f"installed in {found.install_s:.1f} s: {output.size(found.size_bytes)}, packages: {found.packages}")


def _fill(engine: Engine, partial: Path) -> None:
    # Not at the top: who asks only where an environment lies should not wait for it.
    from deploy import installer

    # Relocatable, so that its scripts still find their Python under the final name.
    # The base interpreter, because an engine must not depend on the virtual environment we happen to run in.
    base: str = getattr(sys, "_base_executable", sys.executable)
    installer.create(partial, base)
    installer.install(partial, engine.requirements)
    for name, text in engine.files.items():
        atomic.write(partial / name, text.encode())


def _sweep() -> None:
    """What installs that were killed have left. Only the holder of the lock may: nobody else is building."""
    for leftover in paths.environments_dir().glob(f"*{PARTIAL}*"):
        shutil.rmtree(leftover, ignore_errors=True)
