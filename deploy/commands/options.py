"""What the commands share: options, and the two things that they begin with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from deploy import paths, project
from deploy.hardware import Hardware
from deploy.project import Project

if TYPE_CHECKING:
    from deploy.weights.places import Only

JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
QUIET = click.option("-q", "--quiet", is_flag=True, help="Print ids only.")
LOCKED = click.option("--locked", is_flag=True, help="Refuse a lock that does not fit models.toml.")
FROM = click.option(
    "--from",
    "only",
    metavar="PLACE",
    callback=lambda _context, _option, text: _place(text),
    help="Fetch from this place only: hub, index, file, file:PATH, or the URL of a Hub.",
)
RECORDED = click.option(
    "--hardware",
    "recorded",
    type=click.Path(path_type=Path),
    help="Use a recorded box (from `ownweights hardware --json`) instead of this one.",
)


def here() -> Project:
    """The project in the current folder. Raises ConfigError where there is none."""
    return project.find(Path.cwd())


def box(recorded: Path | None = None) -> Hardware:
    """This box, or a recorded one. Writes nothing."""
    from deploy.hardware import detection, remembered

    return detection.load(recorded) if recorded else remembered.recalled(detection.detect(paths.hub_cache()))


def measured_box() -> Hardware:
    """This box, for who resolves `auto`: its memory bandwidth is measured once, and kept."""
    from deploy.hardware import remembered

    return remembered.measured(box())


def _place(text: str | None) -> Only | None:
    from deploy.weights import places

    return None if text is None else places.parse(text)
