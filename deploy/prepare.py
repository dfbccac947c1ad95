"""The left half of the chain: models.toml → lock → plan → verified weights → installed engines. Idempotent."""

from __future__ import annotations

import time

import msgspec

from deploy import atomic, environment, layout, licence, output, paths, permission, planning
from deploy.changes import history
from deploy.engine import Engine
from deploy.errors import LockError, UserError
from deploy.hardware import Hardware
from deploy.lockfile import Lock, Variant
from deploy.measured import store
from deploy.plan import ModelPlan, Plan, insist
from deploy.project import Project
from deploy.weights import pace, places, puller, room, verify
from deploy.weights.blob import Pulled
from deploy.weights.places import Only


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be served: written when everything is in place, read by ``serve``."""

    inputs: str
    """Digest of what it was made from (``Project.inputs``)."""
    project: str
    host: str
    port: int
    plan: Plan
    created: int
    """Unix seconds."""


def prepare(
    project: Project,
    engines: tuple[Engine, ...],
    hardware: Hardware,
    *,
    locked: bool = False,
    only: Only | None = None,
) -> Deployment:
    """Everything up to, and not including, starting a process. Raises what any link raises."""
    with project.changing():
        lock, decided = decide(project, engines, hardware, locked=locked)
        project.save(lock, reason="deploy")
    for planned in decided.models:
        licence.refuse(project.config, lock.model(planned.model), variant_of(lock, planned))
    variants = [variant_of(lock, planned) for planned in decided.models]
    for variant in variants:
        verify.refuse(variant, only=("changed", "unreadable"))
    fetch(lock, decided, only=only)
    for variant in variants:
        verify.refuse(variant)
    for engine in engines:
        if any((engine.name, engine.device) == (planned.engine, planned.device) for planned in decided.models):
            environment.install(engine)
    server = project.config.server
    deployment = Deployment(
        inputs=project.inputs(hardware),
        project=str(project.folder),
        host=server.host,
        port=server.port,
        plan=decided,
        created=int(time.time()),
    )
    atomic.write(paths.deployment_file(), msgspec.json.encode(deployment), mode=0o600)
    return deployment


def decide(
    project: Project, engines: tuple[Engine, ...], hardware: Hardware, *, locked: bool = False
) -> tuple[Lock, Plan]:
    """The lock that fits models.toml, not written yet, and the plan on this hardware.

    Raises PlanError where a model cannot run here, UserError where something would that models.toml does not allow.
    """
    lock = project.lock(hardware, engines, locked=locked)
    decided = insist(planning.make(project.config, lock, hardware, engines, layout.here(), known=store.read()))
    for planned in decided.models:
        permission.refuse(project.config, lock.model(planned.model), variant_of(lock, planned))
    return lock, decided


def fetch(lock: Lock, decided: Plan, *, only: Only | None, names: tuple[str, ...] = ()) -> tuple[Pulled, ...]:
    """What the plan needs and is not here yet, of these models or of all: said, then pulled, with progress."""
    wanted = {lock.model(name).name for name in names}
    chosen = [planned for planned in decided.models if not wanted or planned.model in wanted]
    for planned in chosen:
        output.say(f"plan: `{planned.model}` runs on {planned.engine} {planned.engine_version} ({planned.device})")
        for reason in planned.because:
            output.say(f"  because {reason}")
    return fetch_variants(lock, tuple(variant_of(lock, planned) for planned in chosen), only=only)


def fetch_variants(lock: Lock, variants: tuple[Variant, ...], *, only: Only | None) -> tuple[Pulled, ...]:
    """The same of variants that no plan has to want."""
    for number, variant in enumerate(variants):
        if variant not in variants[:number]:
            announce(variant, only)
    began = time.monotonic()
    with output.progress() as progress:
        pulled = puller.pull(variants, only=only, keep=_begun(lock), progress=progress)
    pace.note(sum(file.fetched_bytes for file in pulled), time.monotonic() - began)
    return pulled


def _begun(lock: Lock) -> frozenset[str] | None:
    """Blobs that may have been begun for this lock, an earlier one or another project; None: that is not known."""
    try:
        locks = (lock, *history.kept())
    except LockError as error:
        output.warn(f"no unfinished file is removed, as a kept lock cannot be read: {error}")
        return None
    return frozenset(
        file.blob for known in locks for model in known.models for variant in model.variants for file in variant.files
    )


def locked_variants(lock: Lock, names: tuple[str, ...], key: str) -> tuple[Variant, ...]:
    """The variant ``format/precision`` of these models, or of all. Raises LockError where one has none."""
    models = [lock.model(name) for name in names] or list(lock.models)
    for model in models:
        known = [variant.key for variant in model.variants]
        if key not in known:
            raise LockError(f"no variant `{key}` of `{model.name}` in the lock", hint=f"locked: {', '.join(known)}")
    return tuple(variant for model in models for variant in model.variants if variant.key == key)


def read() -> Deployment:
    """The last one that was prepared. Raises UserError where there is none."""
    path = paths.deployment_file()
    try:
        return msgspec.json.decode(path.read_bytes(), type=Deployment)
    except FileNotFoundError as error:
        raise UserError("nothing has been deployed yet", where=str(path), hint="make deploy") from error
    except (ValueError, msgspec.MsgspecError) as error:
        raise UserError(f"the deployment record is damaged: {error}", where=str(path), hint="make deploy") from error


def variant_of(lock: Lock, planned: ModelPlan) -> Variant:
    """The locked variant that a plan chose."""
    return next(variant for variant in lock.model(planned.model).variants if variant.key == planned.variant)


def announce(variant: Variant, only: Only | None) -> None:
    """What will be fetched, and from where, before the first byte."""
    # By size alone: the pull itself hashes what has no stamp, and shows how far it is.
    missing = sum(room.unseen((variant,)).values())
    if missing:
        largest = max(variant.files, key=lambda file: file.size)
        names = ", ".join(place.name for place in places.of(variant, largest, only))
        output.say(f"  to fetch: {output.size(missing)} of {output.size(variant.size)}, from {names}")
