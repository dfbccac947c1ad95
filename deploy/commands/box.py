"""Commands that look around: plan, models, hardware, doctor, paths."""

from __future__ import annotations

import os
import shlex
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import click

from deploy import output, paths
from deploy.commands.options import JSON, RECORDED, box
from deploy.errors import UserError

if TYPE_CHECKING:
    from deploy.hardware import Hardware


@click.command()
@RECORDED
@click.option(
    "--record",
    "target",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the box to FILE, without serial ids and processes, for `--hardware FILE` and for tests.",
)
@JSON
def hardware(recorded: Path | None, target: Path | None, as_json: bool) -> None:
    """What this box has, and what was read of it now. What cannot be known is `unknown`, never a guess."""
    from deploy.hardware import sheet

    found = box(recorded)
    if target is not None:
        _record(found, target)
    if as_json:
        output.dump(found)
        return
    output.table(("FACT", "VALUE"), sheet.facts(found))
    output.data("")
    output.table(("NOW", "VALUE"), sheet.readings(found))


def _record(found: Hardware, target: Path) -> None:
    from deploy import atomic
    from deploy.hardware import record

    # A link stays, and what it points at is replaced.
    place = Path(os.path.realpath(target))
    if not target.is_file() and (target.exists() or place.is_symlink()):
        raise UserError("not a file that can be replaced", where=str(target), hint="ownweights hardware --json")
    if not place.parent.is_dir():
        raise UserError(
            "there is no such folder", where=str(place.parent), hint=f"mkdir -p {shlex.quote(str(place.parent))}"
        )
    atomic.write(place, record.encode(record.anonymous(found, date.today())))
    output.say(f"recorded in `{target}`, without serial ids and processes")


@click.command(name="paths")
@JSON
def paths_(as_json: bool) -> None:
    """Where everything lies. OWNWEIGHTS_HOME moves all of ours, HF_HOME the weights."""
    places = {name: str(path) for name, path in paths.places().items()}
    if as_json:
        output.dump(places)
    else:
        output.table(("PLACE", "PATH"), places.items())
