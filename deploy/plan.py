"""The plan: engine, variant, settings, memory and command per model, each decision with its reason.

``make`` is pure: config, lock, hardware and engines come in, data goes out. Order of the engines is the order
of preference; every one that was not chosen is in ``rejected`` with the reason and what would change it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from itertools import product
from pathlib import Path

import msgspec

from deploy import output
from deploy.config import Config, ModelWish
from deploy.engine import Command, Device, Engine, Launch, Refusal, Settings
from deploy.errors import PlanError
from deploy.hardware import Hardware
from deploy.lockfile import Lock, Model, Variant
from deploy.memory import Term, table, total
from deploy.sizing import size


class Rejection(msgspec.Struct, frozen=True, kw_only=True):
    """What was not chosen, why, and what would change that."""

    what: str
    reason: str
    change: str


class ModelPlan(msgspec.Struct, frozen=True, kw_only=True):
    """How one model will run."""

    model: str
    aliases: tuple[str, ...]
    engine: str
    engine_version: str
    device: Device
    variant: str
    """``format/precision`` of the locked variant."""
    revision: str
    """Commit of the weights, or their tree digest where they came from a path: 12 digits."""
    weights_bytes: int
    settings: Settings
    context_fixed: bool
    """The user's own context: it is never lowered, whatever an engine suggests."""
    memory: tuple[Term, ...]
    because: tuple[str, ...]
    rejected: tuple[Rejection, ...]
    command: Command
    launch: Launch
    """What the command was made from, to make it again with another context."""
    log: str
    start_timeout_s: float


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """All models of the lock on this box."""

    hardware: str
    """Fingerprint of the hardware it was made for."""
    lock: str
    """sha256 of the lock."""
    models: tuple[ModelPlan, ...]


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """Where things will lie, so that the plan can show the exact command before anything exists."""

    weights: Callable[[Variant], Path]
    environment: Callable[[Engine], Path]
    sockets: Path
    state: Path
    logs: Path


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """One way that works."""

    engine: Engine
    variant: Variant
    settings: Settings
    because: tuple[str, ...]


def make(config: Config, lock: Lock, hardware: Hardware, engines: tuple[Engine, ...], layout: Layout) -> Plan:
    """Raises PlanError where a model cannot run here; its message carries every rejection."""
    wishes = {wish.name: wish for wish in config.model}
    models: list[ModelPlan] = []
    for model in lock.models:
        wish = wishes.get(model.name, ModelWish(name=model.name))
        taken = sum(total(planned.memory) for planned in models if planned.device == "cpu")
        choice, rejected = _choose(config, wish, model, hardware, engines, taken=taken)
        models.append(_planned(wish, model, choice, rejected, layout))
    return Plan(hardware=hardware.fingerprint, lock=lock.digest, models=tuple(models))


def _choose(
    config: Config, wish: ModelWish, model: Model, hardware: Hardware, engines: tuple[Engine, ...], *, taken: int
) -> tuple[Choice, tuple[Rejection, ...]]:
    """The first pair of engine and variant that works; every other pair with its reason."""
    chosen: Choice | None = None
    rejected: list[Rejection] = []
    for engine, variant in product(engines, model.variants):
        reason = _unwanted(config, wish, engine, variant)
        refusal = Refusal(reason=reason, change="change models.toml") if reason else engine.refuse(variant, hardware)
        found = refusal or _offer(wish, engine, variant, hardware, taken=taken)
        if isinstance(found, Choice) and chosen is None:
            chosen = found
        else:
            refusal = found if isinstance(found, Refusal) else _second(chosen, engine)
            rejected.append(Rejection(what=_what(engine, variant), reason=refusal.reason, change=refusal.change))
    if chosen is None or (chosen.engine.device == "cpu" and _gpu_expected(config, wish, hardware)):
        raise _impossible(model, rejected, gpu=chosen is not None)
    return chosen, tuple(rejected)


def _offer(wish: ModelWish, engine: Engine, variant: Variant, hardware: Hardware, *, taken: int) -> Choice | Refusal:
    sized = size(engine, variant, hardware, context=wish.context, slots=wish.slots, taken=taken)
    if sized.settings is None:
        return Refusal(reason=sized.reason, change=sized.change)
    because = (_engine_reason(engine, variant, hardware), sized.reason)
    return Choice(engine=engine, variant=variant, settings=sized.settings, because=because)


def _second(chosen: Choice | None, engine: Engine) -> Refusal:
    preferred = _what(chosen.engine, chosen.variant) if chosen else output.UNKNOWN
    return Refusal(reason=f"{preferred} is preferred and fits", change=f'engine = "{engine.name}" for this model')


def _what(engine: Engine, variant: Variant) -> str:
    return f"{engine.name} on {engine.device}, {variant.key}"


def _unwanted(config: Config, wish: ModelWish, engine: Engine, variant: Variant) -> str | None:
    """The user's own words against it."""
    if wish.engine is not None and engine.name != wish.engine:
        return f'the model insists on engine = "{wish.engine}"'
    if engine.device == "gpu" and config.engines.gpu == "none":
        return '[engines] gpu = "none"'
    if engine.device == "cpu" and config.engines.cpu not in (None, engine.name):
        return f'[engines] cpu = "{config.engines.cpu}" insists'
    # With a `gguf` source of its own, the precision picks among the files there.
    chosen_elsewhere = wish.gguf is not None and variant.format != "gguf"
    if wish.precision is not None and not chosen_elsewhere and wish.precision.lower() != variant.precision.lower():
        return f'the model insists on precision = "{wish.precision}"'
    return None


def _gpu_expected(config: Config, wish: ModelWish, hardware: Hardware) -> bool:
    """A box with a GPU never falls to the CPU in silence; naming a CPU-only engine is not silence."""
    return bool(hardware.gpus or hardware.gpu_error) and config.engines.gpu != "none" and wish.engine != "llamacpp"


def _engine_reason(engine: Engine, variant: Variant, hardware: Hardware) -> str:
    if engine.device == "gpu":
        names = ", ".join(sorted({gpu.name or output.UNKNOWN for gpu in hardware.gpus}))
        return f"{len(hardware.gpus)} GPU ({names}): {engine.name} is preferred there and reads {variant.format}"
    return f"no GPU to use: {engine.name} is the first CPU engine that reads {variant.format}"


def _impossible(model: Model, rejected: list[Rejection], *, gpu: bool) -> PlanError:
    lines = "".join(f"\n  {entry.what}: {entry.reason} → {entry.change}" for entry in rejected)
    if gpu:
        return PlanError(
            f"model `{model.name}` would fall to the CPU on a box with a GPU:{lines}",
            hint='fix the GPU, or accept the CPU with [engines] gpu = "none" in models.toml',
        )
    return PlanError(
        f"no engine here can run model `{model.name}`:{lines}", hint="ownweights hardware  # what this box has"
    )


def _planned(
    wish: ModelWish, model: Model, choice: Choice, rejected: tuple[Rejection, ...], layout: Layout
) -> ModelPlan:
    engine, variant = choice.engine, choice.variant
    file_name = slug(model.name)
    launch = Launch(
        model=model.name,
        aliases=model.aliases,
        variant=variant,
        weights=str(layout.weights(variant)),
        socket=str(layout.sockets / f"{_short(model.name)}.sock"),
        environment=str(layout.environment(engine)),
        state=str(layout.state / "engines" / file_name),
        settings=choice.settings,
    )
    reasons = (model.reason, *choice.because)
    return ModelPlan(
        model=model.name,
        aliases=model.aliases,
        engine=engine.name,
        engine_version=engine.version,
        device=engine.device,
        variant=variant.key,
        revision=(variant.origin.commit or variant.tree.removeprefix("sha256:"))[:12],
        weights_bytes=variant.size,
        settings=choice.settings,
        context_fixed=wish.context is not None,
        memory=table(engine, variant, choice.settings),
        because=tuple(reason for reason in reasons if reason),
        rejected=rejected,
        command=engine.command(launch),
        launch=launch,
        log=str(layout.logs / f"{file_name}.log"),
        start_timeout_s=engine.start_timeout_s(variant),
    )


def slug(name: str) -> str:
    """A model's name as a file name: itself where that is safe, else with a digest, so that no two collide."""
    safe = re.sub(r"[^A-Za-z0-9._-]", "-", name)
    return name if safe == name else f"{safe}-{_short(name)}"


def _short(name: str) -> str:
    """Eight digits: a socket's path has room for little."""
    return hashlib.sha256(name.encode()).hexdigest()[:8]
