"""Commands that tell what is served, for those who have to answer for it: licences, sbom."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from deploy import lockfile, output
from deploy.cli import engines
from deploy.commands.options import JSON, here
from deploy.errors import UserError

if TYPE_CHECKING:
    from deploy.config import Config
    from deploy.lockfile import Model, Variant


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """One locked variant and its terms."""

    model: str
    variant: str
    licence: str
    commercial: str
    accepted: bool
    """Its terms ask for nothing, or `allow-licence` names them: it may be deployed."""
    condition: str | None
    source: str | None
    text: str | None
    """sha256 of the licence's text, where the repository holds one."""


@click.command()
@click.option("--notice", type=click.Path(path_type=Path), metavar="DIR", help="Export the texts and required notices.")
@JSON
def licences(notice: Path | None, as_json: bool) -> None:
    """Under which terms the locked models are given. What is not accepted is not deployed."""
    from deploy import notice as notices

    project = here()
    lock = lockfile.read(project.lock_path)
    if notice is not None:
        with _writing(notice):
            written = notices.export(lock, notice)
        output.say(f"exported: {len(written)} file(s) in {notice}, begin with {notices.FILE}")
    served = [_served(project.config, model, variant) for model in lock.models for variant in model.variants]
    if as_json:
        output.dump(served)
        return
    output.table(
        ("MODEL", "VARIANT", "LICENCE", "COMMERCIAL", "ACCEPTED", "CONDITION", "SOURCE"),
        [
            (
                row.model,
                row.variant,
                row.licence,
                row.commercial,
                "yes" if row.accepted else "no",
                row.condition or "-",
                row.source or "-",
            )
            for row in served
        ],
    )


@click.command()
@click.option("--output", "file", type=click.Path(path_type=Path), metavar="FILE", help="Write it there.")
def sbom(file: Path | None) -> None:
    """The bill of materials as CycloneDX 1.6 JSON: models with their files, engines with their packages.

    The same lock gives the same bytes; SOURCE_DATE_EPOCH (Unix seconds) puts a time into it.
    """
    from deploy import atomic
    from deploy import project as projects
    from deploy import sbom as bill

    lock, known = lockfile.read(here().lock_path), engines()
    for pin in set(lock.engines).difference(map(projects.engine_pin, known)):
        output.warn(f"the packages of {pin.name} {pin.version} are not in it: another ownweights has locked them")
    text = bill.document(lock, known, at=_epoch())
    if file is None:
        output.data(text.rstrip("\n"))
    else:
        with _writing(file):
            atomic.write(file, text.encode())
        output.say(f"written: {file}")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Raises UserError where a path of the user's cannot be written, whatever the name that failed."""
    try:
        yield
    except OSError as error:
        in_the_way = isinstance(error, FileExistsError | NotADirectoryError)
        why = "a file lies where a folder must be" if in_the_way else error.strerror
        raise UserError(f"cannot write there: {why}", where=str(path), hint="name another path") from error


def _served(config: Config, model: Model, variant: Variant) -> Served:
    from deploy import licence

    terms = licence.terms(model, variant)
    return Served(
        model=model.name,
        variant=variant.key,
        licence=terms.id,
        commercial=terms.commercial,
        accepted=licence.accepted(config, model, variant),
        condition=terms.condition,
        source=terms.source,
        text=variant.licence.text if variant.licence else None,
    )


def _epoch() -> datetime | None:
    """As reproducible-builds.org specifies the variable."""
    text = os.environ.get("SOURCE_DATE_EPOCH")
    if not text:
        return None
    try:
        return datetime.fromtimestamp(int(text), UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise UserError(
            f"SOURCE_DATE_EPOCH is `{text}`, must be whole seconds since 1970", hint="unset SOURCE_DATE_EPOCH"
        ) from error
