"""`deploy` and `down`: bring a prepared deployment up, tell what is there, bring it down again."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import msgspec

from deploy import lockfile, output, paths
from deploy.changes import history
from deploy.engine import Engine
from deploy.errors import BusyError, EngineError, LockError, WeightsError
from deploy.hardware import detection, remembered
from deploy.lockfile import Lock
from deploy.plan import ModelPlan
from deploy.prepare import Deployment, prepare, read, variant_of
from deploy.project import Project
from deploy.weights import verify
from deploy.weights.places import Only
from serving import fleet, holdings, keys, service
from serving.service import Service


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """One model of it. ``bytes_from`` is None where the bytes were in the cache before us."""

    model: str
    variant: str
    revision: str
    sha256: str
    """Digest of its weights: of the one file, or of the tree where there are several."""
    size_bytes: int
    bytes_from: str | None
    engine: str
    because: tuple[str, ...]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What `deploy` answers with."""

    base_url: str
    key_file: str
    models: tuple[Running, ...]


def bring_up(project: Project, engines: tuple[Engine, ...], *, locked: bool, only: Only | None) -> Service:
    """Prepare and start in the background. What runs already and is still what is wanted stays untouched."""
    running = service.running()
    served = read().plan.lock if running is not None else None
    if running is not None and current(project, engines, running):
        service.wait(running, read())
        return running
    try:
        deployment = prepared(project, engines, locked=locked, only=only)
    except WeightsError:
        if running is not None:
            output.warn("what runs now was started from these files: `ownweights down` ends it")
        raise
    if running is not None:
        output.say("the deployment has changed: restarting")
        service.stop()
    try:
        return service.start(deployment)
    except EngineError:
        _point_back(project, served)
        raise


def _point_back(project: Project, served: str | None) -> None:
    """What ran until now is gone: from another lock, it can be had again."""
    known = [entry.digest for entry in history.entries(project.folder)]
    if served in known[1:]:
        number = known.index(served, 1)
        output.warn(f"what ran until now had another lock: `ownweights rollback {number}` goes back to it")


def prepared(project: Project, engines: tuple[Engine, ...], *, locked: bool, only: Only | None) -> Deployment:
    """``deploy.prepare``, on the box as it is without our engines; and the operator's key."""
    hardware = holdings.given_back(remembered.measured(detection.detect(paths.hub_cache())))
    deployment = prepare(project, engines, hardware, locked=locked, only=only)
    keys.operator_key(paths.key_file())
    return deployment


def current(project: Project, engines: tuple[Engine, ...], running: Service) -> bool:
    """Same inputs, and the weights on disk still pass: otherwise the chain runs, and says what is wrong."""
    hardware = detection.detect(paths.hub_cache())
    if running.inputs != project.inputs(hardware):
        return False
    try:
        lock = project.lock(hardware, engines, locked=True)
    except LockError:
        return False
    return not any(verify.check(variant_of(lock, planned)) for planned in read().plan.models)


def report(running: Service) -> Report:
    """What is there now, from the records alone."""
    deployment = read()
    lock = lockfile.read(Path(deployment.project) / lockfile.FILE)
    models = tuple(_running(lock, planned) for planned in deployment.plan.models)
    return Report(base_url=running.base_url, key_file=str(paths.key_file()), models=models)


def _running(lock: Lock, planned: ModelPlan) -> Running:
    variant = variant_of(lock, planned)
    return Running(
        model=planned.model,
        variant=planned.variant,
        revision=planned.revision,
        sha256=variant.files[0].sha256 if len(variant.files) == 1 else variant.tree.removeprefix("sha256:"),
        size_bytes=planned.weights_bytes,
        bytes_from=verify.provenance(variant),
        engine=f"{planned.engine} {planned.engine_version} on {planned.device}",
        because=planned.because,
    )


def show(found: Report) -> None:
    """The same for people, on stdout, ending with a line to paste."""
    for model in found.models:
        output.data(f"model     {model.model}: {model.variant} at {model.revision}, sha256 {model.sha256[:12]}…")
        origin = model.bytes_from or "the cache, where they lay already"
        output.data(f"bytes     {output.size(model.size_bytes)} from {origin}; every byte hashes to the lock")
        output.data(f"engine    {model.engine}")
        for reason in model.because:
            output.data(f"because   {reason}")
    output.data(f"base URL  {found.base_url}")
    output.data(f"key       in {found.key_file}  (`ownweights env` prints it)")
    body = msgspec.json.encode(
        {"model": found.models[0].model, "messages": [{"role": "user", "content": "Where is my order?"}]}
    ).decode()
    output.data("")
    output.data(
        f"curl {found.base_url}/chat/completions -H \"Authorization: Bearer $(cat '{found.key_file}')\""
        f" -H 'Content-Type: application/json' -d '{body}'"
    )


def bring_down() -> None:
    """End the gateway and every engine, also those that a gateway which is gone has left behind."""
    running = service.stop()
    left = fleet.end_all(grace_s=service.GRACE_S)
    if running is None and not left:
        output.say("nothing is running")
    else:
        output.say("stopped" + (f", with engines left behind: {', '.join(left)}" if left else ""))


@contextmanager
def only_one() -> Iterator[None]:
    """One deploy at a time. Raises BusyError (exit 75), naming the first, for the second."""
    path = paths.deploy_lock_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise BusyError(f"a deploy is running: {file.read()}", where=str(path), hint="wait for it") from error
        file.truncate(0)
        file.write(f"pid {os.getpid()} since {datetime.now():%H:%M:%S}")
        file.flush()
        yield
