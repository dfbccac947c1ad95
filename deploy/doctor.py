"""Is everything around the deployment as it should be? Each problem comes with what fixes it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from deploy import layout, lockfile, paths, planning, ports, prepare, project
from deploy.checks import Context, Status, Verdict, box, clock, engines, fail, folders, gpu, hub, limits, links, python
from deploy.checks import project as chain
from deploy.engine import Engine
from deploy.errors import OwnweightsError, from_system
from deploy.hardware import Hardware, detection
from deploy.lockfile import Lock
from deploy.measured import store
from deploy.plan import Plan
from deploy.project import Project

CHECKS: dict[str, Callable[[Context], Verdict]] = {
    "python": python.supported,
    "packages": python.packages,
    "models.toml": chain.models_toml,
    "lock": chain.lock,
    "plan": chain.plan,
    "engines": engines.installed,
    "engine versions": engines.versions,
    "ollama": engines.ollama,
    "weights": chain.weights,
    "disk": chain.disk,
    "memory": box.memory,
    "swap": limits.swap,
    "memory limit": limits.memory_limit,
    "cores": box.cores,
    "cpu quota": limits.cpu_quota,
    "port": box.port,
    "gpu": gpu.devices,
    "gpu driver": gpu.driver,
    "gpu memory": gpu.memory,
    "gpu errors": gpu.errors,
    "gpu clocks": gpu.clocks,
    "gpu pcie": links.pcie,
    "gpu peers": links.peers,
    "shared memory": links.shared_memory,
    "open files": limits.open_files,
    "address space": limits.address_space,
    "folders": folders.writable,
    "file locks": folders.locks,
    "key": folders.key,
    "clock": clock.clock,
    "hub": hub.reach,
    "hub token": hub.token,
    "hub access": hub.gated,
}


Part = TypeVar("Part")


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict under its check's name: one element of `ownweights doctor --json`."""

    name: str
    status: Status
    seen: str
    hint: str | None


class ProcessRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a process identity that is asked for here."""

    pid: int


class ServiceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The part of the running gateway's record that is asked for here; serving writes it."""

    process: ProcessRecord
    host: str
    port: int


def run(context: Context) -> tuple[Result, ...]:
    """Every check, in the order of the chain."""
    return tuple(Result(name=name, **_verdict(check, context)._asdict()) for name, check in CHECKS.items())


def context(folder: Path, engines: tuple[Engine, ...], hardware: Hardware | None = None) -> Context:
    """The project in a folder, on this box or a recorded one. Never raises for what a check is to report."""
    hardware = hardware or detection.detect(paths.hub_cache())
    service_pid = _service_pid()
    here = _or_error(lambda: project.find(folder))
    if isinstance(here, OwnweightsError):
        return Context(config=here, lock=None, plan=None, engines=engines, hardware=hardware, service_pid=service_pid)
    lock = _or_error(lambda: lockfile.read(here.lock_path)) if here.lock_path.exists() else None
    return Context(
        config=here.config,
        lock=lock,
        stale=tuple(project.stale(lock, here.config, engines)) if isinstance(lock, Lock) else (),
        plan=_plan(here, lock, hardware, engines, running=service_pid is not None) if isinstance(lock, Lock) else None,
        engines=engines,
        hardware=hardware,
        service_pid=service_pid,
    )


def _plan(
    here: Project, lock: Lock, hardware: Hardware, engines: tuple[Engine, ...], *, running: bool
) -> Plan | OwnweightsError:
    """What runs is the plan: one made now would miss the memory that the running engines hold."""
    if running:
        return _or_error(lambda: prepare.read().plan)
    return _or_error(lambda: planning.make(here.config, lock, hardware, engines, layout.here(), known=store.read()))


def _or_error(part: Callable[[], Part]) -> Part | OwnweightsError:
    try:
        return part()
    except OwnweightsError as error:
        return error
    except OSError as error:
        return from_system(error)


def _verdict(check: Callable[[Context], Verdict], context: Context) -> Verdict:
    """A check that meets a closed door has found something too."""
    verdict = _or_error(lambda: check(context))
    return fail(str(verdict), verdict.hint) if isinstance(verdict, OwnweightsError) else verdict


def _service_pid() -> int | None:
    """Of our gateway, when the process that it wrote down is the one that listens."""
    try:
        record = msgspec.json.decode(paths.service_file().read_bytes(), type=ServiceRecord)
        listener = ports.listener(record.host, record.port)
    except (OSError, msgspec.MsgspecError, OwnweightsError):
        return None
    return record.process.pid if listener and listener.pid == record.process.pid else None
