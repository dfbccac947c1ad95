"""Commands about the lock: lock."""

from __future__ import annotations

import click

from deploy import output
from deploy.cli import engines
from deploy.commands.options import JSON, box, here


@click.command()
@click.option("--upgrade", multiple=True, metavar="NAME", help="Resolve this model again, whatever is locked.")
@click.option("--locked", is_flag=True, help="Only check: fail where the lock does not fit models.toml.")
@JSON
def lock(upgrade: tuple[str, ...], locked: bool, as_json: bool) -> None:
    """Resolve models.toml into models.lock: commits, sizes, sha256s, places.

    Catalogue rows that are fully pinned need no network.
    """
    project = here()
    found = project.lock(box(), engines(), locked=locked, upgrade=frozenset(upgrade))
    changed = project.save(found)
    if as_json:
        output.dump(found)
        return
    if not changed:
        output.say("the lock is current")
    for model in found.models:
        for variant in model.variants:
            output.data(f"{model.name}  {variant.key}  {output.size(variant.size)}  {variant.tree}")
