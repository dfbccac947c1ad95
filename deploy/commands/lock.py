"""Commands about the lock: lock, drift."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

import click

from deploy import output
from deploy.cli import engines
from deploy.commands.options import JSON, box, here, measured_box
from deploy.errors import UserError, WeightsError

if TYPE_CHECKING:
    from deploy.changes.drift import Drift
    from deploy.lockfile import Lock
    from deploy.project import Project


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--upgrade", multiple=True, metavar="NAME", help="Resolve this model again, and show what changed.")
@click.option("--accept-new-owner", is_flag=True, help="Go on where a name now belongs to another repository.")
@click.option("--check", is_flag=True, help="Write nothing: derive the lock again at its own commits, and compare.")
@JSON
def lock(names: tuple[str, ...], upgrade: tuple[str, ...], accept_new_owner: bool, check: bool, as_json: bool) -> int:
    """Resolve what of models.toml is not in models.lock, or stale there: commits, sizes, sha256s, places.

    What is locked stays as it is, however far upstream moved, until it is upgraded. Catalogue rows that are fully
    pinned need no network. With NAME only these models. `--check` exits 1 with a diff where the lock differs.
    """
    if check and (upgrade or accept_new_owner):
        raise click.UsageError("--check writes nothing, so it cannot go with --upgrade or --accept-new-owner")
    project, only, upgraded = here(), frozenset(names), frozenset(upgrade)
    if check:
        return _check(project, only, as_json=as_json)
    with project.changing():
        found = project.lock(measured_box(), engines(), only=only, upgrade=upgraded, accept_new_owner=accept_new_owner)
        _show_upgraded(project, found, upgraded)
        changed = project.save(found, reason=" ".join(["lock", *(f"--upgrade {name}" for name in sorted(upgraded))]))
    if as_json:
        output.dump(found)
        return 0
    if not changed:
        output.say("the lock is current")
    for model in found.models:
        for variant in model.variants if not only or model.name in only | upgraded else ():
            output.data(f"{model.name}  {variant.key}  {output.size(variant.size)}  {variant.tree}")
    return 0


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@JSON
def drift(names: tuple[str, ...], as_json: bool) -> int:
    """What changed upstream since models were locked. Writes nothing; exit 3 where something did.

    The branch or tag that was asked for is looked up again. Commits that bring the same files under the same terms
    are no change. `ownweights lock --upgrade NAME` takes over what is shown here. Where one model cannot be looked
    up, the others are shown before the error.
    """
    from deploy import lockfile
    from deploy.changes import drift, drift_lines

    project = here()
    locked = lockfile.read(project.lock_path)
    found: list[Drift] = []
    failed: list[UserError] = []
    for model in [locked.model(name) for name in names] or locked.models:
        fixed = all(drift.is_fixed(variant) for variant in model.variants)
        try:
            found += drift.of_model(model, model if fixed else project.upstream(model))
        except UserError as error:
            failed.append(error)
    if as_json:
        output.dump(found)
    else:
        for one in found:
            for line in drift_lines.lines(one):
                output.data(line)
    for other in failed[1:]:
        output.warn(str(other))
    if failed:
        raise failed[0]
    return WeightsError.exit_code if any(one.changes for one in found) else 0


def _check(project: Project, only: frozenset[str], *, as_json: bool) -> int:
    from deploy import lockfile
    from deploy.project import stale

    previous = lockfile.read(project.lock_path)
    # Of models that are named, only these: whether the lock as a whole fits is not asked.
    changes = [] if only else stale(previous, project.config, engines())
    derived = project.derived(box(), engines(), only=only)
    old, new = (lockfile.write(one).splitlines() for one in (previous, derived))
    lines = list(difflib.unified_diff(old, new, lockfile.FILE, "derived again", lineterm=""))
    current = not lines and not changes
    if as_json:
        output.dump({"current": current, "stale": changes, "diff": lines})
        return int(not current)
    for change in changes:
        output.say(f"the lock is stale: {change}")
    for line in lines:
        output.data(line)
    if current:
        output.say("the lock is current: derived again at its own commits, it is the same")
    return int(not current)


def _show_upgraded(project: Project, found: Lock, upgraded: frozenset[str]) -> None:
    """On stderr, before anything is written."""
    from deploy import lockfile
    from deploy.changes import drift, drift_lines

    before = lockfile.read(project.lock_path).models if upgraded and project.lock_path.exists() else ()
    for model in before:
        for one in drift.of_model(model, found.model(model.name)) if model.name in upgraded else ():
            for line in drift_lines.lines(one):
                output.say(line)
