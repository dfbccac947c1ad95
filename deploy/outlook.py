"""A plan with what it costs before it runs: bytes to fetch, room on the disk, time. Also of a model that is not locked.

Nothing is written and nothing is started; what is locked needs no network.
"""

from __future__ import annotations

import difflib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from deploy import environment, layout, lockfile, planning
from deploy.config import FILE, Config, ModelWish
from deploy.engine import Engine
from deploy.errors import ConfigError, PlanError
from deploy.hardware import Hardware, remembered
from deploy.lockfile import Lock, Model, Variant
from deploy.measured import store
from deploy.plan import Layout, ModelPlan, Plan, Unplanned, Verdict
from deploy.project import Project, stale
from deploy.resolving import source
from deploy.weights import cache, pace, room

if TYPE_CHECKING:
    from deploy.catalog import Row

UNLOCKED = Path("weights-once-locked")


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """From the command line: ``model`` is a name of models.toml, or a source (catalogue id, hf:…, file:…)."""

    model: str | None = None
    context: int | None = None
    slots: int | None = None

    def change(self, wish: ModelWish) -> ModelWish:
        return msgspec.structs.replace(wish, context=self.context or wish.context, slots=self.slots or wish.slots)


class Box(msgspec.Struct, frozen=True, kw_only=True):
    """What is planned for. On one that was recorded elsewhere no weights and no engine are taken to be there."""

    hardware: Hardware
    engines: tuple[Engine, ...]
    recorded: bool = False


class Fetch(msgspec.Struct, frozen=True, kw_only=True):
    """What all models that are shown need and this box does not have yet."""

    bytes: int = 0
    disk_bytes: int = 0
    """Room for them, and for what they are unpacked from on the way."""
    disk_free_bytes: int | None = None
    fits: bool = True
    seconds: float | None = None
    """At the rate of the last pull here; None where there was none."""
    environments: tuple[str, ...] = ()
    """Of engines, to be installed as well: no lock says how large they are."""


class Outlook(msgspec.Struct, frozen=True, kw_only=True):
    """What `ownweights plan --json` prints: the plan, its verdict, and what is to be fetched for it."""

    verdict: Verdict
    hardware: str
    lock: str
    locked: bool
    """False: from the catalogue's figures, or resolved now and not written."""
    models: tuple[ModelPlan, ...]
    unplanned: tuple[Unplanned, ...]
    beside: tuple[str, ...]
    """Models of models.toml that share the box and are not shown."""
    fetch: Fetch


def of(project: Project | None, box: Box, asked: Asked) -> Outlook:
    """Raises ConfigError for a model that nobody knows, LockError or PlaceError where it cannot be resolved."""
    only = _named(project, asked)
    if project is None or (only is None and asked.model is not None):
        return _of_source(project, box, asked)
    try:
        return _of_project(project, box, asked, only)
    except PlanError as error:
        return _of_the_rest(project, box, asked, only, error)


def _named(project: Project | None, asked: Asked) -> ModelWish | None:
    wishes = project.config.model if project else ()
    return next((wish for wish in wishes if asked.model in (wish.name, *wish.aliases)), None)


def _of_project(project: Project, box: Box, asked: Asked, only: ModelWish | None) -> Outlook:
    """All models share the box, so all are planned; one may be shown alone."""
    lock, locked = _lock(project, box)
    wishes = tuple(asked.change(wish) if only in (None, wish) else wish for wish in project.config.model)
    wanted = msgspec.structs.replace(project.config, model=wishes)
    made = planning.make(wanted, lock, box.hardware, box.engines, layout.here(), known=store.read())
    return _outlook(made, box, only=only.name if only else None, locked=locked)


def _lock(project: Project, box: Box) -> tuple[Lock, bool]:
    """The one on disk where it is current, and whether it is; else one that is not written."""
    if project.lock_path.exists():
        found = lockfile.read(project.lock_path)
        if not stale(found, project.config, box.engines):
            return found, True
    # What `auto` would choose is what `deploy` would, which measures; nothing of it is kept here.
    hardware = box.hardware if box.recorded else remembered.measured(box.hardware, keep=False)
    return project.lock(hardware, box.engines), False


def _of_the_rest(project: Project, box: Box, asked: Asked, only: ModelWish | None, error: PlanError) -> Outlook:
    """`auto` found no row for this box: that is the answer for its models, and no reason not to plan the others."""
    wishes = project.config.model
    missing = tuple(
        Unplanned(model=wish.name, reason=error.message, hint=error.hint or "", rejected=())
        for wish in wishes
        if wish.source == "auto" and only in (None, wish)
    )
    rest = tuple(wish for wish in wishes if wish.source != "auto")
    made = Plan(hardware=box.hardware.fingerprint, lock="", models=())
    if rest:
        others = replace(project, config=msgspec.structs.replace(project.config, model=rest))
        found = _of_project(others, box, asked, only if only in rest else None)
        made = Plan(hardware=found.hardware, lock=found.lock, models=found.models, unplanned=found.unplanned)
    made = msgspec.structs.replace(made, unplanned=(*made.unplanned, *missing))
    return _outlook(made, box, only=only.name if only else None, locked=False)


def _of_source(project: Project | None, box: Box, asked: Asked) -> Outlook:
    """A model that models.toml does not have, alone on the box: what if."""
    text = asked.model or ""
    wish = asked.change(ModelWish(name=text.rpartition(":")[2].rpartition("/")[2] or text, source=text))
    base = project.config if project else Config(model=(wish,))
    wanted = msgspec.structs.replace(base, model=(wish,))
    known = source.parse(text).kind == "catalogue"
    lock = _sketched(wish, _row(text, project)) if known else _resolved(wanted, project, box)
    made = planning.make(wanted, lock, box.hardware, box.engines, _layout(), known=store.read())
    return _outlook(made, box, only=None, locked=False)


def _resolved(wanted: Config, project: Project | None, box: Box) -> Lock:
    from deploy.planning import auto
    from deploy.resolving import locking

    return locking.lock(
        wanted,
        previous=None,
        engines=box.engines,
        choose=lambda name: auto.choose(box.hardware, box.engines, name, insisted=wanted.engines),
        base=project.folder if project else Path.cwd(),
    )


def _row(name: str, project: Project | None) -> Row:
    """Raises ConfigError with the nearest names, of models.toml too."""
    from deploy import catalog

    rows = {row.id: row for row in catalog.rows()}
    if name in rows:
        return rows[name]
    wishes = project.config.model if project else ()
    known = [*(one for wish in wishes for one in (wish.name, *wish.aliases)), *rows]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    listed = f"did you mean {' or '.join(f'`{one}`' for one in near)}?" if near else "`ownweights models` lists it;"
    where = f"in {FILE} or in the catalogue" if project else "in the catalogue"
    raise ConfigError(f"no model `{name}` {where}", hint=f"{listed} any other: ownweights plan --model hf:org/repo")


def _sketched(wish: ModelWish, row: Row) -> Lock:
    from deploy.catalog import sketch

    variants = sketch.of(row)
    if not variants:
        raise ConfigError(
            f"the catalogue knows too little of `{row.id}` to plan it", hint=f"ownweights plan --model hf:{row.hf_repo}"
        )
    model = Model(
        name=wish.name, requested=row.id, catalogue=row.id, reason="by the catalogue's figures", variants=variants
    )
    return Lock(generator="", inputs="", models=(model,))


def _layout() -> Layout:
    """A variant that is not locked has no place yet."""
    return msgspec.structs.replace(
        layout.here(), weights=lambda variant: cache.weights(variant) if variant.files else UNLOCKED
    )


def _outlook(made: Plan, box: Box, *, only: str | None, locked: bool) -> Outlook:
    models = tuple(model for model in made.models if only in (None, model.model))
    unplanned = tuple(model for model in made.unplanned if only in (None, model.model))
    shown = msgspec.structs.replace(made, models=models, unplanned=unplanned)
    fetch = _fetch(models, box)
    return Outlook(
        verdict=shown.verdict if fetch.fits else "no",
        hardware=made.hardware,
        lock=made.lock,
        locked=locked,
        models=models,
        unplanned=unplanned,
        beside=tuple(model.model for model in made.models if only not in (None, model.model)),
        fetch=fetch,
    )


def _fetch(models: tuple[ModelPlan, ...], box: Box) -> Fetch:
    variants = tuple(model.launch.variant for model in models)
    size, disk = _whole(variants) if box.recorded else _absent(variants)
    free, rate = box.hardware.now.disk_free_bytes, None if box.recorded else pace.read()
    return Fetch(
        bytes=size,
        disk_bytes=disk,
        disk_free_bytes=free,
        fits=free is None or disk <= free,
        seconds=size / rate.bytes_per_s if rate else None,
        environments=() if box.recorded else _environments(models, box.engines),
    )


def _absent(variants: tuple[Variant, ...]) -> tuple[int, int]:
    """Bytes to fetch, and bytes to be written for that."""
    missing = room.unseen(variants)
    unlisted = _unlisted(variants)
    return unlisted + sum(missing.values()), unlisted + sum(room.needed(variants, missing).values())


def _whole(variants: tuple[Variant, ...]) -> tuple[int, int]:
    """The same of all files; one that several variants have counts once."""
    files = {file.sha256: file.size for variant in variants for file in variant.files}
    size = _unlisted(variants) + sum(files.values())
    return size, size


def _unlisted(variants: tuple[Variant, ...]) -> int:
    """Of those of which the catalogue knows the size alone."""
    return sum(variant.size for variant in variants if not variant.files)


def _environments(models: tuple[ModelPlan, ...], engines: tuple[Engine, ...]) -> tuple[str, ...]:
    wanted = {(model.engine, model.device) for model in models}
    return tuple(
        f"{engine.name} {engine.version} ({engine.device})"
        for engine in engines
        if (engine.name, engine.device) in wanted and environment.describe(engine) is None
    )
