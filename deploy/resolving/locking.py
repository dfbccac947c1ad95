"""models.toml → models.lock: every wish becomes variants whose files are named by their hashes.

A pinned catalogue row needs no network; everything else is resolved once, and kept until it is upgraded.
The same inputs give the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from deploy import __version__, catalog, facts, hub, lockfile, output, selection, source, variants
from deploy.catalog import Gguf, Row
from deploy.config import Config, ModelWish
from deploy.engine import Engine
from deploy.errors import ConfigError, LockError, PlaceError
from deploy.lockfile import Lock, Model, Variant
from deploy.project import engine_pin
from deploy.source import Source


def lock(
    config: Config,
    *,
    previous: Lock | None,
    engines: tuple[Engine, ...],
    choose: Callable[[str], tuple[str, str]],
    formats: tuple[str, ...],
    base: Path,
    upgrade: frozenset[str] = frozenset(),
) -> Lock:
    """The lock of these wishes.

    ``choose`` gives catalogue id and reason for the model of that name, which says ``auto``;
    ``formats`` are those that this box can use;
    ``base`` is the folder that a ``file:`` path counts from; models named in ``upgrade`` are resolved again
    although nothing changed. Raises LockError, or ConfigError for a wish that names nothing.
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
        if last and wish.name not in upgrade and last.inputs == lockfile.wish_digest(wish):
            models.append(msgspec.structs.replace(last, aliases=wish.aliases))
        else:
            models.append(_resolved(wish, choose, formats, base))
            _refuse_new_owner(models[-1], last)
    made = Lock(
        generator=f"ownweights {__version__}",
        inputs=lockfile.inputs_digest(config),
        models=tuple(models),
        engines=tuple(engine_pin(engine) for engine in engines),
    )
    # Through its own text: what is returned is what will be read again, and nothing unreadable is ever written.
    return lockfile.parse(lockfile.write(made))


def _resolved(wish: ModelWish, choose: Callable[[str], tuple[str, str]], formats: tuple[str, ...], base: Path) -> Model:
    wanted, reason = source.parse(wish.source), None
    if wanted.kind == "auto":
        name, reason = choose(wish.name)
        wanted = Source(kind="catalogue", name=name)
    try:
        found = _variants(wanted, wish.precision, formats, base)
    except (ConfigError, LockError, PlaceError) as error:
        kind = ConfigError if isinstance(error, ConfigError) else LockError
        message = f"model `{wish.name}`: {error.message}"
        raise kind(message, where=error.where or wish.source, hint=error.hint) from error
    return Model(
        name=wish.name,
        aliases=wish.aliases,
        requested=wish.source,
        inputs=lockfile.wish_digest(wish),
        catalogue=wanted.name if wanted.kind == "catalogue" else None,
        reason=reason,
        variants=found,
    )


def _variants(wanted: Source, precision: str | None, formats: tuple[str, ...], base: Path) -> tuple[Variant, ...]:
    if wanted.kind == "hf":
        return _of_repository(wanted.name, wanted.revision, precision, formats)
    if wanted.kind == "file":
        found = variants.of_path((base / Path(wanted.name).expanduser()).absolute(), precision)
        _refuse_other(found, precision)
        return (found,)
    return of_row(catalog.find(wanted.name), precision, formats)


def _of_repository(repo: str, revision: str, precision: str | None, formats: tuple[str, ...]) -> tuple[Variant, ...]:
    """Of the formats that this box can use, those that are there; where it is none of them, what there is."""
    snapshot = hub.resolve(repo, revision)
    present = selection.formats(snapshot.paths)
    if not present:
        raise LockError(
            "the repository has neither safetensors with a config.json nor GGUF files; pickles (.bin, .pt, .pth) "
            "can run code when they are loaded and are refused",
            hint=f"look for a safetensors or GGUF copy of {repo}",
        )
    if precision and len(present) > 1:
        # Rare, and then the precision says which: a label that one of the GGUF names carries, or the folder's own.
        labels = {facts.label(path) for path in snapshot.paths if path.endswith(".gguf")}
        present = ("gguf",) if precision.upper() in labels else ("safetensors",)
    found = []
    for kind in [kind for kind in present if kind in formats] or present:
        if kind == "gguf":
            found.append(variants.gguf(snapshot, selection.gguf(snapshot.paths, precision)))
        else:
            found.append(variants.safetensors(snapshot))
            _refuse_other(found[-1], precision)
    return tuple(found)


def of_row(row: Row, precision: str | None, formats: tuple[str, ...]) -> tuple[Variant, ...]:
    """GGUF where the box can use it, safetensors where it can or where there is nothing else."""
    entry, formats = _chosen(row, precision, formats)
    found = []
    if entry and "gguf" in formats:
        found.append(variants.pinned(row, entry) if entry.pinned else _unpinned(row, entry))
    if "safetensors" in formats or not found:
        if found and not hub.reachable():
            output.warn(f"the Hub ({hub.address()}) cannot be reached: `{row.id}` is locked as {found[0].key} only")
        else:
            found.append(_completed(variants.safetensors(hub.resolve(row.hf_repo, row.commit or "main")), row))
    return tuple(found)


def _chosen(row: Row, precision: str | None, formats: tuple[str, ...]) -> tuple[Gguf | None, tuple[str, ...]]:
    """The GGUF to take (the first one unless a precision says otherwise), and the formats that are left."""
    if precision is None:
        return next(iter(row.gguf), None), formats
    entries = {facts.label(entry.file): entry for entry in row.gguf}
    if precision.upper() in entries:
        return entries[precision.upper()], ("gguf",)
    stored = row.native_dtype.split()[0]
    native = facts.PRECISIONS.get(stored, stored)
    if precision.lower() == native:
        return None, ("safetensors",)
    raise LockError(
        f"the catalogue has no `{precision}` of it, but {', '.join([*map(str, entries), native])}",
        hint='take one of them, or name a repository: source = "hf:org/repo"',
    )


def _unpinned(row: Row, entry: Gguf) -> Variant:
    """A GGUF whose commit nobody recorded: resolved now, and refused where its bytes are others than were known."""
    snapshot = hub.resolve(entry.hf_repo, entry.revision or "main")
    if entry.file not in snapshot.paths:
        raise LockError(f"`{entry.hf_repo}` no longer has `{entry.file}`", hint=f'source = "hf:{entry.hf_repo}"')
    found = snapshot.file(entry.file).sha256
    if found != entry.sha256:
        raise LockError(
            f"`{entry.file}` is another file now: the catalogue knows sha256 {entry.sha256}, the Hub has {found}",
            where=entry.hf_repo,
            hint=f'to accept what is there: source = "hf:{entry.hf_repo}@{snapshot.commit}"',
        )
    return _completed(variants.gguf(snapshot, (entry.file,)), row)


def _completed(variant: Variant, row: Row) -> Variant:
    return msgspec.structs.replace(variant, facts=facts.completed(variant.facts, row.facts))


def _refuse_other(variant: Variant, precision: str | None) -> None:
    """A precision that was wished for and is not what is there. A GGUF's file name may say it in other words."""
    said = variant.files[0].path if variant.format == "gguf" else ""
    if precision and precision.lower() != variant.precision.lower() and precision.lower() not in said.lower():
        raise LockError(
            f"its precision is {variant.precision}, not {precision}", hint="leave `precision` out of models.toml"
        )


def _refuse_new_owner(model: Model, before: Model | None) -> None:
    """A name that was given up and registered again looks the same, except for the Hub's own id of it."""
    owners = {variant.origin.repo: variant.origin.repo_id for variant in before.variants} if before else {}
    for variant in model.variants:
        last = owners.get(variant.origin.repo)
        if last and variant.origin.repo_id and last != variant.origin.repo_id:
            raise LockError(
                f"`{variant.origin.repo}` is not the repository that was locked: its id was {last} and is "
                f"{variant.origin.repo_id}, so its name may have a new owner",
                where=f"model {model.name}",
                hint="if you trust the new one, delete the model from models.lock and run `ownweights lock`",
            )
