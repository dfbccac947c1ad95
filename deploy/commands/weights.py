"""Commands about the bytes: pull, verify."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click
import msgspec

from deploy import output
from deploy.cli import engines
from deploy.commands.options import FROM, JSON, LOCKED, here, measured_box

if TYPE_CHECKING:
    from deploy.lockfile import Lock, Model, Variant
    from deploy.weights.places import Only
    from deploy.weights.verify import Depth


def _refuse_other_form(_context: click.Context, _option: click.Parameter, key: str | None) -> str | None:
    """Which model it is of is the argument's business: `m=safetensors/fp8` is no key."""
    from deploy.soundness import WEIGHTS

    form, _, precision = (key or "").partition("/")
    if key is not None and not (form in WEIGHTS and precision):
        raise click.BadParameter(
            f"`{key}` is not format/precision, for example safetensors/fp8 (NAME says of which model)"
        )
    return key


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option(
    "--variant",
    "key",
    metavar="KEY",
    callback=_refuse_other_form,
    help="This locked variant, format/precision, not the planned one.",
)
@FROM
@LOCKED
@JSON
def pull(names: tuple[str, ...], key: str | None, only: Only | None, locked: bool, as_json: bool) -> None:
    """Fetch what the plan needs, of the models NAME or of all, into the Hugging Face cache.

    Each file is verified while it streams, and nothing counts before it hashes to the lock. Interrupted at any byte,
    the next pull goes on there.
    """
    from deploy import prepare

    project, hardware = here(), measured_box()
    if key is None:
        with project.changing():
            found, decided = prepare.decide(project, engines(), hardware, locked=locked)
            project.save(found)
        pulled = prepare.fetch(found, decided, only=only, names=names)
    else:
        with project.changing():
            found = project.lock(hardware, engines(), locked=locked)
            project.save(found)
        pulled = prepare.fetch_variants(found, prepare.locked_variants(found, names, key), only=only)
    if as_json:
        output.dump(pulled)
        return
    for file in pulled:
        output.data(f"{file.path}  {output.size(file.fetched_bytes)} from {file.place}")


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option(
    "--variant",
    "key",
    metavar="KEY",
    callback=_refuse_other_form,
    help="Only this variant: format/precision, as in the lock.",
)
@click.option("--quick", "depth", flag_value="quick", help="Believe the stamps of earlier checks; read no content.")
@click.option("--full", "depth", flag_value="full", help="Hash every byte, whatever the stamps say.")
@JSON
def verify(names: tuple[str, ...], key: str | None, depth: Depth | None, as_json: bool) -> int:
    """Check locked files on disk, offline. Names each wrong, missing, extra or replaced file.

    What was hashed before and is unchanged since is not read again. Exit code 3 for anything that differs from the
    lock, 1 where files are only missing, cannot be read or, with --quick, were not hashed yet.
    """
    from deploy import lockfile
    from deploy.weights import verify

    chosen = _chosen(lockfile.read(here().lock_path), names, key)
    began = time.monotonic()
    with output.progress() as progress:
        inspected = verify.inspect([variant for _, variant in chosen], depth or "stamped", progress)
    found = [
        verify.Named(model=model.name, variant=variant.key, **msgspec.structs.asdict(finding))
        for (model, variant), findings in zip(chosen, inspected, strict=True)
        for finding in findings
    ]
    if as_json:
        output.dump(found)
    elif found:
        output.table(
            ("MODEL", "VARIANT", "FILE", "PROBLEM", "EXPECTED", "FOUND"),
            [
                (row.model, row.variant, row.path, row.problem, row.expected or "nothing", row.found or "nothing")
                for row in found
            ],
        )
    else:
        _praise([variant for _, variant in chosen], time.monotonic() - began if depth == "full" else None)
    return verify.exit_code(found)


def _praise(variants: list[Variant], hashed_s: float | None) -> None:
    size = sum(variant.size for variant in variants)
    rate = f", hashed at {output.size(int(size / hashed_s))}/s" if hashed_s else ""
    output.say(f"as locked: {sum(len(variant.files) for variant in variants)} file(s), {output.size(size)}{rate}")


def _chosen(lock: Lock, names: tuple[str, ...], key: str | None) -> list[tuple[Model, Variant]]:
    """What is to be checked: of the models named, or of all, the variant named, or those that are here."""
    from deploy import prepare

    models = [lock.model(name) for name in names] or list(lock.models)
    if key is None:
        return [(model, variant) for model in models for variant in _on_disk(model)]
    return list(zip(models, prepare.locked_variants(lock, names, key), strict=True))


def _on_disk(model: Model) -> tuple[Variant, ...]:
    """The variants that were pulled: a lock may hold more than this box needs. Where there is none, the first."""
    from deploy.weights import verify

    return tuple(variant for variant in model.variants if verify.present(variant)) or model.variants[:1]
