"""A catalogue row → its variants: all that can be had, one per format and precision.

What is pinned needs no network. Of the rest, a repository that is gone, gated or out of reach leaves its variant out,
which is said once; only where nothing is left is that an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from deploy import hub, output
from deploy.catalog import Gguf, Row, Weights
from deploy.errors import LockError, PlaceError
from deploy.lockfile import Variant
from deploy.resolving import facts, selection, variants
from deploy.resolving.selection import Format
from deploy.resolving.variants import Listed

if TYPE_CHECKING:
    from deploy.resolving.resolution import Request

LABELS = frozenset(["bf16", "fp16", "fp32", "fp8", "mxfp8", "int8", "int4", "fp4", "nvfp4", "mxfp4"])
ALIKE = (frozenset(["fp4", "nvfp4", "mxfp4"]), frozenset(["fp8", "mxfp8"]))
"""Which of them it is, a config.json need not say."""


def of_row(request: Request, row: Row, precision: str | None, formats: Sequence[Format]) -> tuple[Variant, ...]:
    """Raises LockError for a precision that the row does not have; that or PlaceError where nothing can be had."""
    entries = [one for one in _chosen(row, precision) if _format(one) in formats and _was_had(request, one)]
    found: list[Variant] = []
    missed: list[tuple[str, LockError | PlaceError]] = []
    for entry in entries:
        try:
            if (found or missed) and not request.locked:
                _refuse_unreachable(entry)
            found.append(_variant(request, row, entry))
        except (LockError, PlaceError) as error:
            if request.locked:
                raise
            missed.append((_key(entry), error))
    if missed and not found:
        # What is wrong with a file that was found says more than that others were not.
        raise next((error for _, error in missed if isinstance(error, LockError)), missed[0][1])
    if missed:
        _say(request.wish.name, found, missed)
    return tuple(found)


def _chosen(row: Row, precision: str | None) -> list[Weights | Gguf]:
    """Pinned ones first: they are had without asking anyone."""
    entries: list[Weights | Gguf] = [*row.ggufs, *row.weights]
    if precision is None:
        return entries
    named = [one for one in entries if str(one.precision).lower() == precision.lower()]
    if not named:
        known = ", ".join(str(one.precision) for one in entries)
        raise LockError(
            f"the catalogue has no `{precision}` of it, but {known}",
            hint='take one of them, or name a repository: source = "hf:org/repo"',
        )
    return named


def _format(entry: Weights | Gguf) -> Format:
    return "gguf" if isinstance(entry, Gguf) else "safetensors"


def _key(entry: Weights | Gguf) -> str:
    return f"{_format(entry)}/{entry.precision}"


def _was_had(request: Request, entry: Weights | Gguf) -> bool:
    """Of a model that is to be derived again, what was had then."""
    if request.locked is None:
        return True
    return any(
        variant.origin.repo == entry.hf_repo
        and variant.format == _format(entry)
        and entry.precision in (variant.precision, facts.UNKNOWN)
        for variant in request.locked.variants
    )


def _refuse_unreachable(entry: Weights | Gguf) -> None:
    """Once something is had or missed, one that is away is not asked again for every other."""
    if not (isinstance(entry, Gguf) and entry.pinned) and not hub.reachable():
        raise PlaceError(f"the Hub ({hub.address()}) cannot be reached")


def _variant(request: Request, row: Row, entry: Weights | Gguf) -> Variant:
    if isinstance(entry, Gguf):
        return variants.pinned(row, entry) if entry.pinned else _gguf(request, row, entry)
    folder = request.repository(entry.hf_repo, row.commit_of(entry.hf_repo) or "main")
    made = variants.safetensors(folder, allowed=request.wish.allow_remote_code, listed=Listed(row, entry))
    return _labelled(made, entry.precision)


def _labelled(made: Variant, known: str) -> Variant:
    """By the catalogue's word, which tells apart what a config.json calls alike, or by a method's name."""
    said = made.precision
    if known in (said, facts.UNKNOWN):
        return made
    if said in LABELS and not any({said, known} <= alike for alike in ALIKE):
        raise LockError(f"`{made.origin.repo}` is {said}, the catalogue says {known}")
    return msgspec.structs.replace(made, precision=known)


def _gguf(request: Request, row: Row, entry: Gguf) -> Variant:
    """One whose commit nobody recorded: resolved now, and refused where its bytes are others than were known."""
    folder = request.repository(entry.hf_repo, entry.revision or "main")
    if entry.file is None:
        return variants.gguf(folder, selection.gguf(folder.paths, entry.precision), Listed(row))
    if entry.file not in folder.paths:
        raise LockError(f"`{entry.hf_repo}` no longer has `{entry.file}`", hint=f'source = "hf:{entry.hf_repo}"')
    parts = selection.gguf(selection.siblings(entry.file, folder.paths), None)
    made = variants.gguf(folder, parts, Listed(row))
    found = next(file.sha256 for file in made.files if file.path == entry.file)
    if entry.sha256 not in (None, found):
        raise LockError(
            f"`{entry.file}` is another file now: the catalogue knows sha256 {entry.sha256}, the Hub has {found}",
            where=entry.hf_repo,
            hint=f'to accept what is there: source = "hf:{entry.hf_repo}@{folder.origin.commit}"',
        )
    return made


def _say(model: str, found: list[Variant], missed: list[tuple[str, LockError | PlaceError]]) -> None:
    """One line, by reason."""
    reasons: dict[str, list[str]] = {}
    for key, error in missed:
        reasons.setdefault(error.message, []).append(key)
    left = "; ".join(f"{', '.join(keys)}: {reason}" for reason, keys in reasons.items())
    output.warn(
        f"`{model}` is locked as {', '.join(one.key for one in found)} only, without {left}. "
        f"Later: ownweights lock --upgrade {model}",
        about="hub" if all(isinstance(error, PlaceError) for _, error in missed) else None,
    )
