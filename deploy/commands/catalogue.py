"""The command `models`: the catalogue, and what of it fits a box."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from deploy import output
from deploy.cli import engines
from deploy.commands.options import JSON, QUIET, RECORDED, box

if TYPE_CHECKING:
    from deploy.catalog import Row
    from deploy.planning.fitting import Fit

COLUMNS = 120
"""Of a usual terminal, which a table should not leave."""
LICENCE_CHARACTERS = 14
UNSTATED = "active parameters"
"""In a row's list of what is missing."""
VERDICTS = ("fits", "limits", "no", "unknown")
RUNS = ("fits", "limits")


@click.command()
@click.option("--fits", is_flag=True, help="What of it would run on this box, how, and what would change that.")
@JSON
@QUIET
@RECORDED
def models(fits: bool, as_json: bool, quiet: bool, recorded: Path | None) -> None:
    """The catalogue: every row with its facts and their source. Yours are the TOML files in `catalogue` of
    `ownweights paths`.
    """
    if recorded and not fits:
        raise click.UsageError("--hardware needs --fits: the catalogue itself is the same on every box")
    from deploy import catalog

    rows = sorted(catalog.rows(), key=_place)
    if fits:
        _show_fits(rows, recorded, as_json=as_json, quiet=quiet)
    elif as_json:
        mine = catalog.users()
        output.dump([msgspec.to_builtins(row) | {"user": row.id in mine} for row in rows])
    elif quiet:
        for row in rows:
            output.data(row.id)
    else:
        _show(rows, catalog.users())


def _place(row: Row) -> tuple[str, float]:
    """By family, the small ones first, those of unknown size last."""
    return row.family, float("inf") if row.total_params_b is None else row.total_params_b


def _show(rows: Sequence[Row], mine: frozenset[str]) -> None:
    output.table(
        ("ID", "PARAMS", "ACTIVE", "CONTEXT", "LICENCE", "FROM", "VARIANTS"),
        [
            (
                row.id,
                _billions(row.total_params_b),
                _active(row),
                row.context_length,
                _cut((row.licence.name or output.UNKNOWN).removeprefix("LicenseRef-"), LICENCE_CHARACTERS),
                _reach(row) + (", yours" if row.id in mine else ""),
                " ".join([*(one.precision for one in row.weights), *(str(one.precision) for one in row.ggufs)]),
            )
            for row in rows
        ],
    )
    output.say("FROM: hub, pinned (locks without a network), index (fetched from the package index as well)")


def _billions(count: float | None) -> str | None:
    return None if count is None else f"{count:g}B"


def _active(row: Row) -> str | None:
    """Of a dense model all of them, for which the catalogue names no number."""
    if row.active_params_b is None and (row.total_params_b is None or UNSTATED in row.unknown):
        return None
    return _billions(row.active_params_b) or "-"


def _reach(row: Row) -> str:
    return "index" if row.indexed else "pinned" if row.pinned else "hub"


def _cut(text: str, characters: int) -> str:
    return text if len(text) <= characters else text[: characters - 1] + "…"


def _show_fits(rows: Sequence[Row], recorded: Path | None, *, as_json: bool, quiet: bool) -> None:
    """What fits first, and of that the largest."""
    from deploy.planning import fitting

    largest = sorted(rows, key=lambda row: -(row.total_params_b or 0))
    found = sorted(fitting.of(tuple(largest), box(recorded), engines()), key=lambda fit: VERDICTS.index(fit.verdict))
    if as_json:
        output.dump(found)
    elif quiet:
        for fit in found:
            if fit.verdict in RUNS:
                output.data(fit.id)
    else:
        _table(found)


def _table(found: Sequence[Fit]) -> None:
    """What would run, and below it what would not, with what it would take."""
    runs = [fit for fit in found if fit.verdict in RUNS]
    others = [fit for fit in found if fit.verdict not in RUNS]
    _fill(
        ("ID", "FIT", "PRECISION", "ENGINE", "MEMORY", "CONTEXT", "TOK/S", "LIMITS"),
        [(*_cells(fit), "; ".join(fit.limits) or "-") for fit in runs],
    )
    if runs and others:
        output.data("")
    _fill(("ID", "FIT", "WHAT IT WOULD TAKE"), [(fit.id, fit.verdict, fit.change) for fit in others])


def _cells(fit: Fit) -> tuple[object, ...]:
    many = f" x {fit.gpus}" if fit.gpus and fit.gpus > 1 else ""
    return (
        fit.id,
        fit.verdict,
        fit.variant and fit.variant.rpartition("/")[2],
        f"{fit.engine}{many}",
        output.size(fit.memory_bytes),
        fit.context_tokens,
        None if fit.tokens_per_s is None else f"{fit.tokens_per_s:.{0 if fit.tokens_per_s >= 10 else 1}f}",
    )


def _fill(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table whose last column takes what the others leave of a line; nothing where there are no rows."""
    if not rows:
        return
    shown = [[output.UNKNOWN if cell is None else str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *shown, strict=True)]
    left = max(20, COLUMNS - sum(widths[:-1]) - 2 * (len(header) - 1))
    output.table(header, [(*row[:-1], _cut(row[-1], left)) for row in shown])
