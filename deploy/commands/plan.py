"""The command that decides and does nothing: plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from deploy import output
from deploy.cli import engines
from deploy.commands.options import JSON, RECORDED, box
from deploy.dimensions import MOST
from deploy.errors import OwnweightsError, PlanError, UserError, from_system

WRONG_INPUT = 2
CODES = {"fits": 0, "limits": 3, "no": 4}
COUNT = click.IntRange(min=1, max=MOST)


class Plan(click.Command):
    """Its exit code is an answer (0 fits, 3 with limits, 4 does not fit), so that wrong input has one of its own."""

    def make_context(self, *args: Any, **options: Any) -> click.Context:
        try:
            return super().make_context(*args, **options)
        except click.UsageError as error:
            raise _wrong(UserError(error.format_message(), hint="ownweights plan --help")) from error

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except PlanError:
            raise
        except UserError as error:
            raise _wrong(error) from error
        except OSError as error:
            raise _wrong(from_system(error)) from error


@click.command(cls=Plan)
@RECORDED
@click.option("--model", metavar="NAME", help="One of models.toml, or a source: catalogue id, hf:org/repo, file:PATH.")
@click.option("--context", type=COUNT, metavar="TOKENS", help="Plan for this context.")
@click.option("--slots", type=COUNT, metavar="N", help="Plan for so many requests at once.")
@click.option("--history", is_flag=True, help="What was predicted and measured on this box, start by start.")
@click.option("--forget", is_flag=True, help="Drop what was measured on this box, of all models or of --model NAME.")
@JSON
def plan(recorded: Path | None, history: bool, forget: bool, as_json: bool, **asked: Any) -> int:
    """What would run on this box, with the reason of every decision. Changes nothing but what --forget drops.

    Exit code 0: it fits, 3: it fits with limits, 4: it does not fit, 2: wrong input.
    """
    if forget:
        others = (recorded, history or None, as_json or None, asked["context"], asked["slots"])
        if any(value is not None for value in others):
            raise UserError("--forget goes with --model only", hint="ownweights plan --forget")
        return _forget(asked["model"])
    if history:
        if recorded or any(value is not None for value in asked.values()):
            raise UserError("--history goes with --json only", hint="ownweights plan --history")
        return _history(as_json=as_json)
    from deploy import outlook
    from deploy.commands import planned

    here = outlook.Box(hardware=box(recorded), engines=engines(), recorded=recorded is not None)
    found = outlook.of(_project(asked["model"]), here, outlook.Asked(**asked))
    if as_json:
        output.dump(found)
    else:
        planned.show(found)
    return CODES[found.verdict]


def _project(model: str | None) -> Any:
    """A what-if of a source needs no models.toml."""
    from deploy import config, project

    folder = Path.cwd()
    if model is not None and not (folder / config.FILE).exists():
        return None
    return project.find(folder)


def _wrong(error: OwnweightsError) -> OwnweightsError:
    error.exit_code = WRONG_INPUT
    return error


def _history(*, as_json: bool) -> int:
    from deploy.commands import planned
    from deploy.measured import comparison, store

    rows = comparison.rows(store.read())
    if as_json:
        output.dump(rows)
    else:
        planned.show_history(rows)
    return 0


def _forget(model: str | None) -> int:
    """Of this box alone: a home may be shared."""
    from deploy.commands import planned
    from deploy.measured import Entry, store

    here = box().fingerprint

    def wanted(entry: Entry) -> bool:
        return entry.hardware == here and model in (None, entry.model)

    planned.show_forgotten(tuple(filter(wanted, store.read().entries)))
    store.forget(wanted)
    return 0
