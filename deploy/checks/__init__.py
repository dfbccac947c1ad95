"""What a check looks at and what it answers. The checks themselves lie in the modules here, by subject.

``fail``: `ownweights deploy` cannot work, or not be trusted, before this is fixed. ``warn``: it works, but not as
well as it could, or will have to do something first. ``skip``: there is nothing to check here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from deploy.config import Config
from deploy.engine import Engine
from deploy.errors import OwnweightsError
from deploy.hardware import Hardware
from deploy.lockfile import Lock
from deploy.plan import ModelPlan, Plan

Status = Literal["ok", "warn", "fail", "skip"]


class Verdict(NamedTuple):
    """``seen`` is what is there; ``hint`` the command or the line of models.toml that fixes it, one per line."""

    status: Status
    seen: str
    hint: str | None = None


@dataclass(frozen=True, kw_only=True)
class Context:
    """Where a part could not be had, the error that says why stands in its place."""

    config: Config | OwnweightsError
    lock: Lock | OwnweightsError | None
    """None: nothing has been locked yet."""
    stale: tuple[str, ...] = ()
    """What of the lock no longer fits models.toml."""
    plan: Plan | OwnweightsError | None
    """Of the running service where there is one, else made for this box; None without a lock."""
    engines: tuple[Engine, ...]
    hardware: Hardware
    service_pid: int | None = None
    """The gateway that runs now."""

    @property
    def gpu_wanted(self) -> bool:
        return not (isinstance(self.config, Config) and self.config.engines.gpu == "none")

    @property
    def models(self) -> tuple[ModelPlan, ...]:
        """What is planned to run; empty where there is no plan."""
        return self.plan.models if isinstance(self.plan, Plan) else ()


def ok(seen: str) -> Verdict:
    return Verdict("ok", seen)


def warn(seen: str, hint: str) -> Verdict:
    return Verdict("warn", seen, hint)


def fail(seen: str, hint: str | None) -> Verdict:
    return Verdict("fail", seen, hint)


def skip(seen: str) -> Verdict:
    return Verdict("skip", seen)


def together(found: Iterable[Verdict], fine: Verdict) -> Verdict:
    """All problems of a check that looks at several things, as one; ``fine`` where there is none."""
    problems = [verdict for verdict in found if verdict.status in ("warn", "fail")]
    if not problems:
        return fine
    status: Status = "fail" if any(verdict.status == "fail" for verdict in problems) else "warn"
    hints = dict.fromkeys(verdict.hint for verdict in problems if verdict.hint)
    return Verdict(status, "; ".join(verdict.seen for verdict in problems), "\n".join(hints) or None)
