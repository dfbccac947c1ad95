"""Commands about the bytes: pull, verify."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from deploy import output
from deploy.cli import engines
from deploy.commands.options import JSON, LOCKED, box, here

if TYPE_CHECKING:
    from deploy.lockfile import Model, Variant


@click.command()
@click.option("--from", "only", type=click.Choice(["hub", "index", "file"]), help="Fetch from this place only.")
@LOCKED
@JSON
def pull(only: str | None, locked: bool, as_json: bool) -> None:
    """Fetch what the plan needs into the Hugging Face cache, verified while it streams."""
    from deploy import prepare

    project = here()
    found, decided = prepare.decide(project, engines(), box(), locked=locked)
    project.save(found)
    pulled = prepare.fetch(found, decided, only=only)
    if as_json:
        output.dump(pulled)
        return
    for file in pulled:
        output.data(f"{file.path}  {output.size(file.fetched_bytes)} from {file.place}")


@click.command()
@click.option("--full", is_flag=True, help="Hash every byte, whatever the stamps say.")
@JSON
def verify(full: bool, as_json: bool) -> int:
    """Check every locked file on disk, offline. Names each wrong, missing, extra or replaced file; exit 1 if any."""
    from deploy import lockfile
    from deploy.weights import verify

    found = lockfile.read(here().lock_path)
    variants = [variant for model in found.models for variant in _on_disk(model)]
    findings = [finding for variant in variants for finding in verify.check(variant, full=full)]
    if as_json:
        output.dump(findings)
    elif not findings:
        count = sum(len(variant.files) for variant in variants)
        output.say(f"as locked: {count} file(s), {output.size(sum(variant.size for variant in variants))}")
    else:
        output.table(
            ("FILE", "PROBLEM", "EXPECTED", "FOUND"),
            [(finding.path, finding.problem, finding.expected, finding.found) for finding in findings],
        )
    return 1 if findings else 0


def _on_disk(model: Model) -> tuple[Variant, ...]:
    """The variants that were pulled: a lock may hold more than this box needs. Where there is none, the first."""
    from deploy.weights import verify

    return tuple(variant for variant in model.variants if verify.present(variant)) or model.variants[:1]
