"""Commands that look around: plan, models, hardware, doctor, paths."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from deploy import output, paths
from deploy.cli import engines
from deploy.commands.options import JSON, QUIET, RECORDED, box, here

if TYPE_CHECKING:
    from deploy.plan import ModelPlan


@click.command()
@RECORDED
@JSON
def plan(recorded: Path | None, as_json: bool) -> None:
    """What would run on this box, with the reason of every decision. Changes nothing."""
    from deploy import prepare

    _, decided = prepare.decide(here(), engines(), box(recorded))
    if as_json:
        output.dump(decided)
        return
    for model in decided.models:
        _show(model)


@click.command()
@JSON
@QUIET
def models(as_json: bool, quiet: bool) -> None:
    """The catalogue: every row with its facts and their source."""
    from deploy import catalog

    rows = catalog.rows()
    if as_json:
        output.dump(rows)
    elif quiet:
        for row in rows:
            output.data(row.id)
    else:
        output.table(
            ("ID", "FAMILY", "PARAMETERS", "CONTEXT", "LICENCE", "PINNED"),
            [
                (
                    row.id,
                    row.family,
                    row.total_params_b and f"{row.total_params_b}B",
                    row.context_length,
                    row.licence.spdx,
                    "yes" if row.pinned else "no",
                )
                for row in rows
            ],
        )


@click.command()
@RECORDED
@JSON
def hardware(recorded: Path | None, as_json: bool) -> None:
    """What this box has. What cannot be known is `unknown`, never a guess."""
    found = box(recorded)
    if as_json:
        output.dump(found)
        return
    cpu = found.cpu
    output.table(
        ("FACT", "VALUE"),
        [
            ("platform", found.platform),
            ("cpu", cpu.model),
            (
                "cores",
                f"{cpu.physical_cores} physical, {cpu.affinity_cores} allowed, quota {cpu.quota_cores or 'none'}",
            ),
            ("usable cores", found.cores),
            ("isa", " ".join(cpu.isa) or None),
            ("memory", output.size(found.memory_total_bytes)),
            ("memory free", output.size(found.memory_free_bytes)),
            ("disk free", output.size(found.disk_free_bytes)),
            ("driver", found.driver or found.gpu_error or ("none" if not found.gpus else None)),
            *((f"gpu {gpu.index}", f"{gpu.name}, {output.size(gpu.memory_total_bytes)}") for gpu in found.gpus),
            ("fingerprint", found.fingerprint),
        ],
    )


@click.command()
@JSON
def doctor(as_json: bool) -> int:
    """Check the surroundings. Each problem comes with the command that fixes it; exit 1 if anything fails."""
    from deploy import doctor

    results = doctor.run(doctor.context(Path.cwd(), engines()))
    if as_json:
        output.dump(results)
    else:
        for result in results:
            output.data(f"{result.status:<4}  {result.name}: {result.seen}")
            if result.hint:
                output.data(f"      hint: {result.hint}")
    return int(any(result.status == "fail" for result in results))


@click.command(name="paths")
@JSON
def paths_(as_json: bool) -> None:
    """Where everything lies. OWNWEIGHTS_HOME moves all of ours, HF_HOME the weights."""
    places = {name: str(path) for name, path in paths.places().items()}
    if as_json:
        output.dump(places)
    else:
        output.table(("PLACE", "PATH"), places.items())


def _show(model: ModelPlan) -> None:
    """One model's plan for people: the decision, its reasons, memory, what was rejected, the exact command."""
    settings = model.settings
    output.data(
        f"{model.model}: {model.variant} at {model.revision} on {model.engine} {model.engine_version} ({model.device})"
    )
    output.data(f"  promises {settings.slots} slots of {settings.context_tokens} tokens")
    for reason in model.because:
        output.data(f"  because {reason}")
    for term in model.memory:
        output.data(f"  memory  {term.name}: {output.size(term.bytes)} ({term.provenance}: {term.formula})")
    for entry in model.rejected:
        output.data(f"  not {entry.what}: {entry.reason} → {entry.change}")
    output.data(f"  command {shlex.join(model.command.argv)}")
    for name, value in sorted(model.command.env.items()):
        output.data(f"  env     {name}={value}")
