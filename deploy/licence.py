"""Licences: the Hub's tags as SPDX ids, what a licence's terms mean for a deployment, and whether they were accepted.

Nothing here is legal advice: the words are those of the named sources, and where none says it, it is unknown.
"""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from deploy import catalog
from deploy.catalog import Licence, Row
from deploy.config import FILE, Config
from deploy.errors import UserError
from deploy.lockfile import Model, Variant

Commercial = Literal["yes", "conditions", "no", "unknown"]

FAMILIES = {"lgpl-lr": "LGPLLR", "odbl": "ODbL-1.0", "odc-by": "ODC-By-1.0", "pddl": "PDDL-1.0"}
"""Tags of the Hub without a version, where SPDX has exactly one."""
UNSAID = ("", "unknown")
LENGTH = 100
REFERENCE = "LicenseRef-"
UNNAMED = "NOASSERTION"
"""SPDX's word where no licence is stated."""
PERMISSIVE = frozenset(
    {"0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC-BY-4.0", "CC0-1.0", "ISC", "MIT", "MIT-0", "Unlicense"}
)
"""Each allows every use, and asks only whoever hands copies on to keep its notice: a server of answers hands on none.
The GPLs, share-alike and use-restricted (RAIL) licences are not here: what they ask of a service is disputed."""
NON_COMMERCIAL = re.compile(r"CC-BY-NC(-SA|-ND)?-\d.*")
SAYS: dict[Commercial, str] = {
    "yes": "allows commercial use",
    "conditions": "has conditions",
    "no": "forbids commercial use",
    "unknown": "is not known to allow commercial use",
}


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What a licence asks of who deploys, in the words of ``source``. No source: nobody read it for us."""

    id: str
    """As locked, or `NOASSERTION`."""
    commercial: Commercial
    condition: str | None = None
    source: str | None = None


def spdx(tag: str | None, name: str | None, repo: str) -> str | None:
    """The SPDX id of a repository's licence tag. None: its author says nothing.

    ``name`` is the card's `license_name`, which says what ``other`` is; ``repo`` is `org/name`. What SPDX does
    not list becomes a `LicenseRef-…`, which claims no more than that some text has this name.
    """
    from cyclonedx.spdx import fixup_id

    tag = (tag or "").strip().lower()
    if tag in UNSAID:
        return None
    if tag == "other":
        return _reference((name or "").strip() or repo)
    return fixup_id(FAMILIES.get(tag, tag)) or _reference(tag)


def page(id_: str) -> str | None:
    """Where the standard text of a licence stands; None for what SPDX does not list."""
    from cyclonedx.spdx import is_supported_id

    return f"https://spdx.org/licenses/{id_}.html" if is_supported_id(id_) else None


def terms(model: Model, variant: Variant) -> Terms:
    """Of a locked variant: the catalogue's word where it speaks of this model *and* this licence, else the id's own."""
    locked = variant.licence.id if variant.licence else UNNAMED
    row = _row(model, variant)
    if row is None:
        return _known(locked)
    listed = row.licence
    if _covers(listed, locked):
        note = None if listed.commercial == "yes" else listed.note
        return Terms(id=locked, commercial=listed.commercial, condition=note, source=listed.source)
    return _doubted(locked, listed)


def accepted(config: Config, model: Model, variant: Variant) -> bool:
    """Whether it may be deployed: its terms ask for nothing, or models.toml names exactly them.

    A file of this machine that names no licence is for its owner to judge. Raises nothing.
    """
    found = terms(model, variant)
    wanted = _allowed(config, model)
    if wanted is not None:
        return _same(wanted, found.id)
    return found.commercial == "yes" or (variant.origin.kind == "path" and variant.licence is None)


def refuse(config: Config, model: Model, variant: Variant) -> None:
    """Raises UserError, quoting the terms, unless they are accepted. For what serves; locking and pulling are free.

    That the Hub asks for acceptance before a download (``gated``) is another matter, between it and the token.
    """
    if accepted(config, model, variant):
        return
    found = terms(model, variant)
    wanted = _allowed(config, model)
    rule = f"is under {found.id}, which {SAYS[found.commercial]}" if found.id != UNNAMED else "names no licence"
    said = f": “{found.condition}”" if found.condition else ""
    source = f" [{found.source}]" if found.source else ""
    before = f"models.toml accepts {wanted} for it, but " if wanted else ""
    raise UserError(
        f"model `{model.name}`: {before}{variant.key} {rule}{said}{source}",
        where=FILE,
        hint=f'read the licence; to accept it, under name = "{model.name}" in {FILE}: allow-licence = "{found.id}"',
    )


def _allowed(config: Config, model: Model) -> str | None:
    return next((wish.allow_licence for wish in config.model if wish.name == model.name), None)


def _row(model: Model, variant: Variant) -> Row | None:
    """The model's own row, or the one that names the repository (the Hub's names ignore case)."""
    repo = (variant.origin.repo or "").lower()
    known = catalog.rows()
    own = (row for row in known if row.id == model.catalogue)
    naming = (row for row in known if repo in _repositories(row))
    return next(own, None) or next(naming, None)


def _repositories(row: Row) -> set[str]:
    copies = (*(one.hf_repo for one in row.variant), *(one.hf_repo for one in row.gguf))
    return {repo.lower() for repo in (row.hf_repo, *copies, *(one.hf_repo for one in row.revision))}


def _known(locked: str) -> Terms:
    """What the id itself tells."""
    if locked in PERMISSIVE:
        return Terms(id=locked, commercial="yes", source=page(locked))
    if NON_COMMERCIAL.fullmatch(locked):
        return Terms(id=locked, commercial="no", condition="NonCommercial purposes only", source=page(locked))
    return Terms(id=locked, commercial="unknown")


def _doubted(locked: str, listed: Licence) -> Terms:
    """Of a licence other than the catalogue's: a ban stands as it is, all else is no longer known."""
    known = _known(locked)
    doubt = f"the catalogue knows this model under another licence, {listed.spdx}"
    if listed.commercial != "yes" and listed.note:
        doubt += f": {listed.note}"
    if known.commercial == "no":
        return msgspec.structs.replace(known, condition=f"{known.condition}; {doubt}")
    return Terms(id=locked, commercial="unknown", condition=doubt, source=listed.source)


def _same(one: str, other: str) -> bool:
    """SPDX ids ignore case."""
    return one.lower() == other.lower()


def _covers(listed: Licence, locked: str) -> bool:
    """The same, or a card's own name of terms, to which the catalogue adds the model's: many are called alike.

    So loosely only where it makes nothing pass.
    """
    named = locked.startswith(REFERENCE) and listed.spdx.lower().startswith(f"{locked.lower()}-")
    return _same(listed.spdx, locked) or (named and listed.commercial != "yes")


def _reference(name: str) -> str:
    """Characters that SPDX allows in a reference, whatever the card says."""
    return REFERENCE + re.sub(r"[^A-Za-z0-9.-]", "-", name[:LENGTH])
