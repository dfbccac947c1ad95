"""models.toml → models.lock: every wish becomes variants whose files are named by their hashes.

A pinned catalogue row needs no network; everything else is resolved once, and kept until it is upgraded.
The same inputs give the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from deploy import __version__, lockfile, output
from deploy.config import Config
from deploy.engine import Engine
from deploy.errors import ConfigError, LockError, PlaceError
from deploy.lockfile import Lock, Model, Passed
from deploy.project import engine_pin
from deploy.resolving import resolution, source
from deploy.resolving.resolution import Request
from deploy.resolving.source import Source


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """The catalogue row that ``auto`` takes. ``passed``: what was better by its order, the best first."""

    id: str
    variant: str | None = None
    """``format/precision`` that was weighed: another one of the row may be too slow or too large."""
    reason: str
    passed: tuple[Passed, ...] = ()


Choose = Callable[[str], Chosen]


def lock(
    config: Config,
    *,
    previous: Lock | None,
    engines: tuple[Engine, ...],
    choose: Choose,
    base: Path,
    upgrade: frozenset[str] = frozenset(),
    accept_new_owner: bool = False,
    at_locked: bool = False,
    comparing: bool = False,
) -> Lock:
    """The lock of these wishes, the same one on every box.

    ``choose`` takes a catalogue row for the model of that name, which says ``auto``;
    ``base`` is the folder that a ``file:`` path counts from; models named in ``upgrade`` are resolved again
    although nothing changed. ``accept_new_owner``: of a repository whose name has passed to another one.
    ``comparing``: what is there now is asked for, so of what cannot be had nothing locked is kept in its place.
    ``at_locked`` derives again what ``previous`` holds, at its commits: the same bytes come out, unless they were
    tampered with. Raises LockError, or ConfigError for a wish that names nothing.
    """
    known = {wish.name for wish in config.model}
    if missing := upgrade - known:
        raise LockError(
            f"no model `{min(missing)}` to upgrade", where="models.toml", hint=f"wished for: {', '.join(sorted(known))}"
        )
    before = {model.name: model for model in previous.models} if previous else {}
    models = []
    for wish in config.model:
        last = before.get(wish.name)
        current = last is not None and last.inputs == lockfile.wish_digest(wish)
        if last and current and wish.name not in upgrade and not at_locked:
            models.append(msgspec.structs.replace(last, aliases=wish.aliases))
            continue
        request = Request(wish=wish, base=base, comparing=comparing)
        if current:
            request = msgspec.structs.replace(request, **{"locked" if at_locked else "before": last})
        models.append(_resolved(request, choose))
        if last:
            _compare_owners(models[-1], last, accept=accept_new_owner)
    made = Lock(
        generator=previous.generator if previous and at_locked else f"ownweights {__version__}",
        inputs=lockfile.inputs_digest(config),
        models=tuple(models),
        engines=tuple(engine_pin(engine) for engine in engines),
    )
    return _readable(made)


def _readable(made: Lock) -> Lock:
    """Through its own text: what is returned is what will be read again, and nothing unreadable is ever written."""
    try:
        return lockfile.parse(lockfile.write(made))
    except LockError as error:
        rule = error.message.removeprefix(lockfile.DAMAGED)
        raise LockError(
            f"what was found cannot be locked: {rule}", where="models.toml", hint="name another `source` for this model"
        ) from error


def _resolved(request: Request, choose: Choose) -> Model:
    wish = request.wish
    try:
        wanted, chosen = _wanted(request, choose)
        found = resolution.variants_of(request, wanted)
        if not found:
            raise LockError("nothing of it could be derived again", hint=f"ownweights lock --upgrade {wish.name}")
    except (ConfigError, LockError, PlaceError) as error:
        kind = ConfigError if isinstance(error, ConfigError) else LockError
        message = f"model `{wish.name}`: {error.message}"
        raise kind(message, where=error.where or wish.source, hint=error.hint) from error
    model = Model(
        name=wish.name,
        aliases=wish.aliases,
        requested=wish.source,
        inputs=lockfile.wish_digest(wish),
        catalogue=wanted.name if wanted.kind == "catalogue" else None,
        reason=chosen.reason if chosen else None,
        preferred=chosen.variant if chosen else None,
        passed=chosen.passed if chosen else (),
        variants=found,
    )
    _say_templates(model)
    if request.before and not request.comparing:
        _say_lost(model, request.before)
    return model


def kept(model: Model) -> Chosen:
    """The choice that a locked model was."""
    return Chosen(id=model.catalogue or "", variant=model.preferred, reason=model.reason or "", passed=model.passed)


def _wanted(request: Request, choose: Choose) -> tuple[Source, Chosen | None]:
    """What the wish names, and the choice where it was one: once, then it stays."""
    wish, locked = request.wish, request.locked
    wanted = source.parse(wish.source)
    if wanted.kind != "auto":
        return wanted, None
    if wish.gguf:
        raise ConfigError("`auto` chooses the model, so no `gguf` can belong to it", hint="name a `source` beside it")
    if locked and locked.catalogue:
        return Source(kind="catalogue", name=locked.catalogue), kept(locked)
    chosen = choose(wish.name)
    return Source(kind="catalogue", name=chosen.id), chosen


def _say_templates(model: Model) -> None:
    """Two formats of one model that would be spoken to in two ways."""
    known = [variant for variant in model.variants if variant.facts.chat_template]
    if len({variant.facts.chat_template for variant in known}) > 1:
        keys = " and ".join(variant.key for variant in known)
        output.say(f"`{model.name}`: {keys} carry different chat templates, so their answers may differ in form")


def _say_lost(model: Model, before: Model) -> None:
    """What was locked, and has no newer form. Why, was said where it was looked for."""
    if model.catalogue != before.catalogue:
        return  # `auto` chose another one
    there = {(variant.format, variant.origin.repo) for variant in model.variants}
    keys = {variant.key for variant in model.variants}
    for variant in before.variants:
        if variant.key not in keys and (variant.format, variant.origin.repo) not in there:
            place = f" of `{variant.origin.repo}`" if variant.origin.repo else ""
            output.warn(f"`{model.name}`: {variant.key}{place} was locked, and is not any more")


def _compare_owners(model: Model, before: Model, *, accept: bool) -> None:
    """A name that was given up and registered again looks the same, except for the Hub's own id of it."""
    owners = {variant.origin.repo: variant.origin.repo_id for variant in before.variants}
    for variant in model.variants:
        last, now = owners.get(variant.origin.repo), variant.origin.repo_id
        if not last or not now or last == now:
            continue
        message = (
            f"`{variant.origin.repo}` is not the repository that was locked: its id was {last} and is {now}, "
            "so its name may have a new owner"
        )
        if not accept:
            raise LockError(
                message,
                where=f"model {model.name}",
                hint=f"if you trust the new one: ownweights lock --upgrade {model.name} --accept-new-owner",
            )
        output.warn(f"{message}: accepted")
