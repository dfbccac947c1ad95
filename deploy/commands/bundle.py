"""Commands that carry a deployment to other boxes: bundle export, bundle import."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from deploy import output
from deploy.cli import engines
from deploy.commands.options import JSON, box, here

if TYPE_CHECKING:
    from rich.progress import Progress

    from deploy.lockfile import Lock
    from deploy.plan import Plan

CORE = Path(__file__).parents[2] / "requirements" / "core.txt"
"""Beside the project's code, not in an installed package."""


@click.group()
def bundle() -> None:
    """Carry a deployment to a box without a network, as one archive."""


@bundle.command("export")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--split", metavar="SIZE", help="In pieces of at most this size: 4GB, 700MB, 2GiB.")
@click.option("--variant", "key", metavar="KEY", help="This locked variant, for another kind of box; no engines.")
@click.option("--no-engines", is_flag=True, help="Lock and weights only: no wheels of engines, nor our own.")
@JSON
def export(
    file: Path, names: tuple[str, ...], *, split: str | None, key: str | None, no_engines: bool, as_json: bool
) -> None:
    """Write lock, verified weights and wheels into FILE, a tar; only models NAME where some are named.

    Interrupted, it goes on where it ended. Keys and results never go in.
    """
    from deploy import config, prepare
    from deploy.bundle import packing, pieces
    from deploy.changes import history
    from deploy.weights import verify

    piece = pieces.size(split) if split else None
    project = here()
    lock, decided = prepare.decide(project, engines(), box(), locked=True)
    planned = _planned(lock, decided, names)
    variants = (
        prepare.locked_variants(lock, names, key)
        if key
        else tuple(prepare.variant_of(lock, model) for model in planned.models)
    )
    for variant in variants:
        verify.refuse(variant)
    with output.progress() as progress:
        core, wheels = ((), ()) if no_engines or key else _wheels(planned, progress)
        wishes = (project.folder / config.FILE).read_bytes()
        sources = packing.contents(
            lock, wishes, history.earlier(project.folder, lock), variants, core=core, wheels=wheels
        )
        packed = packing.pack(file, lock, sources, piece=piece, progress=progress)
    if as_json:
        output.dump(packed)
        return
    output.say(f"{output.size(packed.size)} in {len(packed.files)} file(s); manifest sha256 {packed.manifest}")
    output.say(f"on the other box: ownweights bundle import {file.name}")
    for path in packed.files:
        output.data(path)


@bundle.command("import")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--replace", is_flag=True, help="Put its lock and models.toml in place of others that lie here.")
@JSON
def import_(file: Path, replace: bool, as_json: bool) -> None:
    """Verify FILE (or its pieces) and take it in: weights, wheels, then models.toml and models.lock, here.

    Needs no network, nor does `ownweights deploy` after it where this box plans what the bundle holds.
    """
    from deploy.bundle import unpacking

    with output.progress() as progress:
        unpacked = unpacking.unpack(file, Path.cwd(), replace=replace, progress=progress)
    if as_json:
        output.dump(unpacked)
        return
    weights = f"{output.size(unpacked.blobs_size)} of weights in {unpacked.blobs} file(s)"
    output.say(f"taken in: {weights}, {unpacked.wheels} wheel(s); manifest sha256 {unpacked.manifest}")
    if unpacked.kept:
        output.say(f"the models.toml that lay here is kept: {unpacked.kept}")
    for name in unpacked.left_out:
        output.warn(f"`{name}` is in the lock, but none of its weights are in this bundle: a deploy will want them")
    output.say("next: ownweights deploy")
    for name in unpacked.models:
        output.data(name)


def _planned(lock: Lock, decided: Plan, names: tuple[str, ...]) -> Plan:
    """The plan of the named models, or of all. Raises LockError for an unknown name."""
    import msgspec

    wanted = {lock.model(name).name for name in names}
    models = tuple(model for model in decided.models if not wanted or model.model in wanted)
    return msgspec.structs.replace(decided, models=models)


def _wheels(planned: Plan, progress: Progress) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Our own environment's, where we know it, and those of the planned engines; fetched where they are not here."""
    from deploy import wheelhouse

    task = progress.add_task("wheels", total=None)

    def arriving(name: str, count: int, total: int) -> None:
        progress.update(task, description=name, completed=count, total=total)

    wanted = {(model.engine, model.device) for model in planned.models}
    sets = [engine.requirements for engine in engines() if (engine.name, engine.device) in wanted]
    core = wheelhouse.fetch(CORE, arriving) if CORE.exists() else ()
    found = dict.fromkeys(path for requirements in sets for path in wheelhouse.fetch(requirements, arriving))
    progress.remove_task(task)
    if not core:
        output.say("without our own wheels: their requirement set lies in the repository, not in this installation")
    return core, tuple(found)
