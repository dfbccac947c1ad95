"""Command that checks the surroundings: doctor."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from deploy import output
from deploy.cli import engines
from deploy.commands.options import JSON

if TYPE_CHECKING:
    from deploy.doctor import Result


@click.command()
@JSON
def doctor(as_json: bool) -> int:
    """Check the surroundings. Each problem comes with the command that fixes it; exit 1 if anything fails."""
    from deploy import doctor

    results = doctor.run(doctor.context(Path.cwd(), engines()))
    if as_json:
        output.dump(results)
    else:
        _show(results)
    return int(any(result.status == "fail" for result in results))


def _show(results: tuple[Result, ...]) -> None:
    """One line per check, and each hint below in a line of its own, to be copied."""
    width = max(len(result.name) for result in results)
    for result in results:
        output.data(f"{result.status:<4}  {result.name:<{width}}  {output.printable(result.seen)}")
        for line in (result.hint or "").splitlines():
            output.data(f"{'':<{width + 8}}hint: {line}")
    problems = [f"{count} {word}" for word in ("fail", "warn") if (count := _count(results, word))]
    output.say(f"{len(results)} checks: {', '.join(problems) or 'no problem'}")


def _count(results: tuple[Result, ...], status: str) -> int:
    return sum(result.status == status for result in results)
