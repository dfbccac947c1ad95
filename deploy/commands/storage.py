"""Commands about what is kept: history, gc."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from deploy import output
from deploy.changes.history import KEPT
from deploy.cli import engines
from deploy.commands.options import JSON, here

if TYPE_CHECKING:
    from deploy.changes.history import Past
    from deploy.weights.freeing import Freeable


@click.command()
@JSON
def history(as_json: bool) -> None:
    """Earlier locks of this project, newest first: the numbers are what `ownweights rollback` takes."""
    from deploy.changes import history

    folder = here().folder
    history.notice(folder)
    found = history.past(folder)
    if as_json:
        output.dump(found)
        return
    rows = [(row.number, _time(row.at), row.digest[:12], _models(row), row.reason) for row in found]
    output.table(("NUMBER", "SINCE", "LOCK", "MODELS", "WHY"), rows)


def _time(at: int) -> str:
    return datetime.fromtimestamp(at).isoformat(sep=" ")


def _models(row: Past) -> str | None:
    if row.models is None:
        return None
    return ", ".join(f"{model.name} {model.variant} {model.commit}" for model in row.models)


@click.command()
@click.option(
    "--keep",
    type=click.IntRange(min=1),
    default=KEPT,
    show_default=True,
    help="How many of each project's locks keep their weights.",
)
@click.option("--yes", is_flag=True, help="Free it without asking.")
@click.option("--incomplete", is_flag=True, help="Also downloads that other tools left unfinished an hour ago or more.")
@JSON
def gc(keep: int, yes: bool, incomplete: bool, as_json: bool) -> None:
    """Show what nothing needs any more, and free it if you say so.

    That is weights which we fetched, engine environments, unfinished downloads, older locks. What is deployed, what
    the last locks of any project name and what other tools put into the cache stays.
    """
    from deploy.weights import leftovers

    def find() -> tuple[Freeable, ...]:
        return leftovers.find(engines(), keep=keep, here=Path.cwd(), incomplete=incomplete)

    found = find()
    freed = None
    if not as_json:
        _show(found)
    if found and (yes or (not as_json and _agreed())):
        freed = leftovers.free(found, find, keep)
    if as_json:
        output.dump({"items": found, "freed_bytes": freed})
    elif freed is not None:
        output.say(f"freed {output.size(freed)}")
    elif found:
        output.say("nothing was freed: `ownweights gc --yes` does it")


def _show(found: tuple[Freeable, ...]) -> None:
    from deploy.changes import history

    for known in history.projects():
        if not Path(known.folder).exists():
            path = history.list_file(Path(known.folder))
            output.say(f"the locks of `{known.folder}`, which is gone, still count: `rm '{path}'` ends that")
    if not found:
        output.say("nothing to free")
        return
    rows = [(item.kind, output.size(item.frees_bytes), item.path, item.why) for item in found]
    output.table(("WHAT", "FREES", "WHERE", "WHY"), rows)
    output.say(f"in all {output.size(sum(item.frees_bytes for item in found))}")


def _agreed() -> bool:
    """Where nobody can be asked, nobody agreed."""
    return sys.stdin.isatty() and click.confirm("free it?", err=True)
