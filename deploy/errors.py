"""Every failure a user can meet: what, where, and the command that fixes it.

    OwnweightsError          exit 2   something of ours is wrong
    ├── UserError            exit 1   bad input, or an outside world that cannot be used as it is
    │   ├── ConfigError               models.toml
    │   ├── LockError                 models.lock
    │   ├── WeightsError  exit 3      bytes that are not the pinned ones
    │   ├── PlaceError                a place could not give the bytes
    │   │   └── GoneError             there is no such repository or revision
    │   ├── PlanError     exit 4      no engine on this box can run the model
    │   └── InstallError              an engine's environment could not be made
    ├── EngineError          exit 2   an engine would not start or stopped answering
    └── BusyError            exit 75  another ownweights is doing this now: try again later

Printed as ``error: what (where)`` and ``hint: the exact command``; a traceback only with OWNWEIGHTS_DEBUG=1.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path


class OwnweightsError(Exception):
    """Base of all. ``where`` names the file, key, host or port; ``hint`` is a command or an action."""

    exit_code = 2

    def __init__(self, message: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.where})" if self.where else self.message


class UserError(OwnweightsError):
    """The input or the surroundings must change before this can work."""

    exit_code = 1


class ConfigError(UserError):
    """models.toml cannot be read, or holds a key or value that we do not know."""


class LockError(UserError):
    """models.lock is missing, stale, damaged or of an unknown version."""


class WeightsError(UserError):
    """A file is missing, extra, or does not hash to what the lock says."""

    exit_code = 3


class PlaceError(UserError):
    """A place (hub, index, file) could not give the bytes. The next place may."""


class GoneError(PlaceError):
    """The Hub answers, and has no such repository or revision: asking again later will not help."""


class PlanError(UserError):
    """No engine on this hardware can run the model; the message carries each rejection."""

    exit_code = 4


class InstallError(UserError):
    """An engine's environment could not be installed."""


class EngineError(OwnweightsError):
    """An engine process failed to start or stopped answering."""


class BusyError(OwnweightsError):
    """Another ownweights process holds what this one needs."""

    exit_code = 75


def from_system(error: OSError) -> OwnweightsError:
    """What the operating system refused, in our form: a read-only or foreign folder, a full disk."""
    where = str(error.filename) if error.filename else None
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        variable = _mover(where) if where else "OWNWEIGHTS_HOME"
        return UserError(
            f"no access: {error.strerror}", where=where, hint=f"{variable}=/a/writable/folder ownweights deploy"
        )
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(
            f"no disk space: {error.strerror}", where=where, hint="df -h; ownweights paths  # what lies where"
        )
    return OwnweightsError(
        error.strerror or str(error), where=where, hint="OWNWEIGHTS_DEBUG=1 shows where this came from"
    )


def _mover(where: str) -> str:
    """The variable that moves this place."""
    # Not at the top: it raises our errors.
    from deploy import paths

    if not Path(where).absolute().is_relative_to(paths.hub_cache()):
        return "OWNWEIGHTS_HOME"
    narrower = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    return "HF_HUB_CACHE" if narrower else "HF_HOME"
