"""The plan is made here: config, lock, hardware, engines and what was measured come in, data goes out. Pure, all but
`auto`, which asks whether a Hub answers.

Several models share one box in the order of models.toml: each may grow into what the others do not need at least.
"""

from __future__ import annotations

import msgspec

from deploy import output
from deploy.config import Config, ModelWish
from deploy.engine import Engine, Launch
from deploy.hardware import Gpu, Hardware
from deploy.lockfile import Lock, Model
from deploy.measured import NOTHING, Known
from deploy.memory import Term
from deploy.plan import Layout, ModelPlan, Plan, Rejection, Unplanned, short, slug
from deploy.planning import contradiction, experience
from deploy.planning.budget import Taken
from deploy.planning.choice import Choice, Chooser, telling
from deploy.planning.way import Way

WEIGHTS = ("weights", "experts")
"""Lines of a memory table that are sizes of files."""


def make(
    config: Config,
    lock: Lock,
    hardware: Hardware,
    engines: tuple[Engine, ...],
    layout: Layout,
    *,
    known: Known = NOTHING,
) -> Plan:
    """A plan of every model of the lock. What nothing here can run is in ``unplanned``.

    Raises ConfigError for wishes that no box could fulfil.
    """
    wishes = {wish.name: wish for wish in config.model}
    order = {name: place for place, name in enumerate(wishes)}
    models = sorted(lock.models, key=lambda model: order.get(model.name, len(order)))
    choosers = [
        Chooser(
            config=config,
            wish=wishes.get(model.name, ModelWish(name=model.name)),
            variants=model.variants,
            hardware=hardware,
            engines=engines,
            known=known,
            preferred=model.preferred,
        )
        for model in models
    ]
    for chooser in choosers:
        contradiction.refuse(chooser)
    choices = _shared(choosers)
    planned: list[ModelPlan] = []
    unplanned: list[Unplanned] = []
    for model, chooser, choice in zip(models, choosers, choices, strict=True):
        if choice.way is None or chooser.falls(choice.way.engine):
            unplanned.append(_unplanned(model, chooser, choice, tuple(planned)))
        else:
            planned.append(_planned(model, chooser, choice.way, choice.rejected, layout))
    return Plan(hardware=hardware.fingerprint, lock=lock.digest, models=tuple(planned), unplanned=tuple(unplanned))


def _shared(choosers: list[Chooser]) -> list[Choice]:
    """First what each needs at least, in order; then each again, with what the others leave."""
    if len(choosers) == 1:
        return [choosers[0].choose({})]
    held: list[Taken] = []
    for chooser in choosers:
        held.append(_held(chooser, chooser.choose(_sum(held), modest=True)))
    choices = []
    for number, chooser in enumerate(choosers):
        choice = chooser.choose(_sum(held[:number] + held[number + 1 :]))
        held[number] = _held(chooser, choice)
        choices.append(choice)
    return choices


def _held(chooser: Chooser, choice: Choice) -> Taken:
    """Nothing, where it will not run."""
    return {} if choice.way is None or chooser.falls(choice.way.engine) else choice.way.taken


def _sum(held: list[Taken]) -> Taken:
    total: dict[int, int] = {}
    for taken in held:
        for device, size in taken.items():
            total[device] = total.get(device, 0) + size
    return total


def _unplanned(model: Model, chooser: Chooser, choice: Choice, before: tuple[ModelPlan, ...]) -> Unplanned:
    reason = f"no engine here can run model `{model.name}`"
    hint = _crowded(chooser, before)
    on_gpu = tuple(entry for entry in choice.rejected if entry.device == "gpu")
    if hint is None and choice.way is not None and not any(entry.fix for entry in on_gpu):
        reason = f"model `{model.name}` would fall to the CPU on a box with a GPU"
        hint = f'{_change(on_gpu)}, or accept the CPU with [engines] gpu = "none" in models.toml'
    return Unplanned(
        model=model.name,
        reason=reason,
        hint=hint or _change(choice.rejected),
        rejected=choice.rejected,
    )


def _crowded(chooser: Chooser, before: tuple[ModelPlan, ...]) -> str | None:
    """Alone it would fit: then another model on the same kind of device can be removed or made smaller."""
    alone = chooser.choose({}, modest=True).way
    if alone is None or chooser.falls(alone.engine):
        return None
    beside = [plan for plan in before if plan.device == alone.engine.device]
    if not beside:
        return None
    largest = max(beside, key=lambda plan: sum(term.bytes for term in plan.memory))
    held = output.size(sum(term.bytes for term in largest.memory))
    return f"alone it would fit: remove `{largest.model}` ({held}) from models.toml, or lower its context and slots"


def _change(rejected: tuple[Rejection, ...]) -> str:
    found = telling(rejected)
    return f"{found.what}: {found.change}" if found else "ownweights hardware  # what this box has"


def _passed_over(model: Model) -> tuple[Rejection, ...]:
    """What `auto` had before the row that it took, the nearest first."""
    return tuple(
        Rejection(what=f"catalogue row {one.id}", reason=one.reason, change=one.change)
        for one in reversed(model.passed)
    )


def _memory(way: Way) -> tuple[Term, ...]:
    """Of what is not locked, nobody here has counted the weights yet."""
    if way.variant.files:
        return way.memory
    return tuple(
        msgspec.structs.replace(term, provenance="third-party", source="the catalogue's figure, not locked")
        if term.name in WEIGHTS
        else term
        for term in way.memory
    )


def _planned(model: Model, chooser: Chooser, way: Way, rejected: tuple[Rejection, ...], layout: Layout) -> ModelPlan:
    engine, variant, settings, hardware = way.engine, way.variant, way.settings, chooser.hardware
    timeout_s = experience.start_timeout_s(variant, engine, hardware, chooser.known)
    launch = Launch(
        model=model.name,
        aliases=model.aliases,
        variant=variant,
        weights=str(layout.weights(variant)),
        socket=str(layout.sockets / f"{short(model.name)}.sock"),
        environment=str(layout.environment(engine)),
        state=str(layout.state / "engines" / slug(model.name)),
        settings=settings,
        gpus=tuple(_cuda_name(gpu) for gpu in hardware.gpus if gpu.index in settings.devices),
        generation=next((gpu.generation for gpu in hardware.gpus if gpu.index in settings.devices), None),
        start_timeout_s=timeout_s,
    )
    lessons = experience.lessons(variant, engine, settings, hardware, chooser.known)
    reasons = (model.reason, *way.because, *lessons)
    return ModelPlan(
        model=model.name,
        aliases=model.aliases,
        verdict="limits" if way.limits else "fits",
        limits=way.limits,
        engine=engine.name,
        engine_version=engine.version,
        device=engine.device,
        variant=variant.key,
        revision=(variant.origin.commit or variant.tree.removeprefix("sha256:"))[:12],
        weights_bytes=variant.size,
        settings=settings,
        context_fixed=chooser.wish.context is not None,
        kv_tokens=way.kv_tokens,
        memory=_memory(way),
        room_bytes=way.room_bytes,
        speed=experience.tokens_per_s(variant, engine, settings, hardware, chooser.known),
        because=tuple(reason for reason in reasons if reason),
        rejected=(*rejected, *_passed_over(model)),
        command=engine.command(launch),
        launch=launch,
        log=str(layout.logs / f"{slug(model.name)}.log"),
        start_timeout_s=timeout_s,
    )


def _cuda_name(gpu: Gpu) -> str:
    """CUDA does not count slices."""
    return gpu.uuid if gpu.slice_of is not None and gpu.uuid else str(gpu.index)
