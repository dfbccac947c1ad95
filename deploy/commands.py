"""Commands that start nothing: lock, pull, verify, plan, models, hardware, doctor, paths."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from deploy import output, paths, project
from deploy.cli import engines
from deploy.hardware import Hardware
from deploy.project import Project

if TYPE_CHECKING:
    from deploy.lockfile import Model, Variant
    from deploy.plan import ModelPlan

JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
QUIET = click.option("-q", "--quiet", is_flag=True, help="Print ids only.")
RECORDED = click.option(
    "--hardware",
    "recorded",
    type=click.Path(path_type=Path),
    help="Use a recorded box (from `ownweights hardware --json`) instead of this one.",
)


@click.command()
@click.option("--upgrade", multiple=True, metavar="NAME", help="Resolve this model again, whatever is locked.")
@click.option("--locked", is_flag=True, help="Only check: fail where the lock does not fit models.toml.")
@JSON
def lock(upgrade: tuple[str, ...], locked: bool, as_json: bool) -> None:
    """Resolve models.toml into models.lock: commits, sizes, sha256s, places.

    Catalogue rows that are fully pinned need no network.
    """
    here = _here()
    found = here.lock(_hardware(None), engines(), locked=locked, upgrade=frozenset(upgrade))
    changed = here.save(found)
    if as_json:
        output.dump(found)
        return
    if not changed:
        output.say("the lock is current")
    for model in found.models:
        for variant in model.variants:
            output.data(f"{model.name}  {variant.key}  {output.size(variant.size)}  {variant.tree}")


@click.command()
@click.option("--from", "only", type=click.Choice(["hub", "index", "file"]), help="Fetch from this place only.")
@click.option("--locked", is_flag=True, help="Refuse a lock that does not fit models.toml.")
@JSON
def pull(only: str | None, locked: bool, as_json: bool) -> None:
    """Fetch what the plan needs into the Hugging Face cache, verified while it streams."""
    from deploy import prepare

    here = _here()
    found, decided = prepare.decide(here, engines(), _hardware(None), locked=locked)
    here.save(found)
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
    from deploy import lockfile, verify

    found = lockfile.read(_here().lock_path)
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


@click.command()
@RECORDED
@JSON
def plan(recorded: Path | None, as_json: bool) -> None:
    """What would run on this box, with the reason of every decision. Changes nothing."""
    from deploy import prepare

    _, decided = prepare.decide(_here(), engines(), _hardware(recorded))
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
    found = _hardware(recorded)
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


def _here() -> Project:
    return project.find(Path.cwd())


def _on_disk(model: Model) -> tuple[Variant, ...]:
    """The variants that were pulled: a lock may hold more than this box needs. Where there is none, the first."""
    from deploy import verify

    return tuple(variant for variant in model.variants if verify.present(variant)) or model.variants[:1]


def _hardware(recorded: Path | None) -> Hardware:
    from deploy import detection

    return detection.load(recorded) if recorded else detection.detect(paths.hub_cache())


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
