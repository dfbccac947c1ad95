"""A catalogue row → its variants: all that can be had, one per format and precision.

What is pinned needs no network. Of the rest, a repository that is gone, gated, out of reach or of another model leaves
its variant out, which is said once; only where nothing is left is that an error. What was locked before is kept as it
was instead, unless its repository is gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from deploy import hub, output
from deploy.catalog import Gguf, Row, Weights
from deploy.dimensions import Cache
from deploy.errors import GoneError, LockError, PlaceError
from deploy.lockfile import Facts, Model, Variant
from deploy.resolving import facts, selection, variants
from deploy.resolving.selection import Format
from deploy.resolving.variants import Listed

if TYPE_CHECKING:
    from deploy.resolving.resolution import Request

LABELS = frozenset(["bf16", "fp16", "fp32", "fp8", "mxfp8", "int8", "int4", "fp4", "nvfp4", "mxfp4"])
ALIKE = (frozenset(["fp4", "nvfp4", "mxfp4"]), frozenset(["fp8", "mxfp8"]))
"""Which of them it is, a config.json need not say."""


class Missed(NamedTuple):
    """A variant of the row that cannot be had now, and what was locked of it before, if that stays."""

    key: str
    error: LockError | PlaceError
    kept: Variant | None


def of_row(request: Request, row: Row, precision: str | None, formats: Sequence[Format]) -> tuple[Variant, ...]:
    """Raises LockError for a precision that the row does not have; that or PlaceError where nothing can be had."""
    found: list[Variant] = []
    missed: list[Missed] = []
    for entry in _chosen(row, precision):
        if _format(entry) not in formats or (request.locked and not _locked(request.locked, entry)):
            continue
        try:
            if (found or missed) and not request.locked:
                _refuse_unreachable(entry)
            made = _variant(request, row, entry)
            _refuse_other_model(made, row, entry, found)
            found.append(made)
        except (LockError, PlaceError) as error:
            missed.append(_missed(request, entry, error))
    if missed and not found:
        # What is wrong with a file that was found says more than that others were not.
        raise next((one.error for one in missed if isinstance(one.error, LockError)), missed[0].error)
    _say(request.wish.name, found, missed)
    return (*found, *(one.kept for one in missed if one.kept))


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


def _locked(model: Model, entry: Weights | Gguf) -> Variant | None:
    """What a locked model has of it."""
    return next(
        (
            variant
            for variant in model.variants
            if variant.origin.repo == entry.hf_repo
            and variant.format == _format(entry)
            and entry.precision in (variant.precision, facts.UNKNOWN)
        ),
        None,
    )


def _missed(request: Request, entry: Weights | Gguf, error: LockError | PlaceError) -> Missed:
    """Raises the error where the same is to come out as before, or where what is there now is to be known."""
    gone = isinstance(error, GoneError)
    last = request.locked or request.before
    before = _locked(last, entry) if last else None
    if before and (request.locked or (request.comparing and not gone)):
        hint = f"ownweights lock --upgrade {request.wish.name}  # {'drops' if gone else 'keeps'} {before.key}"
        raise LockError(
            f"{before.key}: {error.message}", where=error.where, hint=hint if gone else error.hint or hint
        ) from error
    return Missed(before.key if before else _key(entry), error, None if gone else before)


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


def _refuse_other_model(made: Variant, row: Row, entry: Weights | Gguf, found: Sequence[Variant]) -> None:
    """Quantized, a model keeps its dimensions: with others it is another one under this name.

    A file that the catalogue knows by its sha256 was looked at when it was written down.
    """
    if isinstance(entry, Gguf) and entry.sha256:
        return
    if made.format == "safetensors" and not _is_of(made.facts.architecture, row.architectures):
        families = ", ".join(row.architectures)
        raise LockError(f"`{made.origin.repo}` is a {made.facts.architecture}, not a {families}: another model")
    own = _dimensions(made.facts)
    for known in (row.facts(), *(one.facts for one in found)):
        for name, value in _dimensions(known).items():
            if own.get(name, value) != value:
                raise LockError(
                    f"`{made.origin.repo}` has {name} {own[name]}, the model has {value}: it is another model"
                )


def _is_of(architecture: str | None, known: Sequence[str]) -> bool:
    """Whether it may be that family. A copy's class is at times named more or less exactly than the model's own."""
    if architecture is None or not known:
        return True
    stem, *stems = (name.partition("For")[0].lower() for name in (architecture, *known))
    return any(stem.startswith(one) or one.startswith(stem) for one in stems)


def _dimensions(known: Facts) -> dict[str, int | str]:
    """Those that no way to store weights changes, as far as they are known."""
    cache, shape = known.cache, known.shape
    given = {
        "layers": shape.layers if shape and shape.layers else _layers(cache),
        "hidden width": shape.hidden if shape else None,
        "KV heads": cache.kv_heads if cache else None,
        "attention": cache.kind if cache else None,
    }
    return {name: value for name, value in given.items() if value is not None}


def _layers(cache: Cache | None) -> int | None:
    if cache is None:
        return None
    return cache.layers + cache.window_layers + (cache.recurrent.layers if cache.recurrent else 0)


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


def _say(model: str, found: Sequence[Variant], missed: Sequence[Missed]) -> None:
    """One line of what stays as it was, one of what is left out, by reason."""
    kept, left = [one for one in missed if one.kept], [one for one in missed if not one.kept]
    if kept:
        output.warn(
            f"`{model}` keeps what was locked of {_by_reason(kept)}. Later: ownweights lock --upgrade {model}",
            about=_about(kept),
        )
    if left:
        keys = ", ".join([*(one.key for one in found), *(one.key for one in kept)])
        output.warn(
            f"`{model}` is locked as {keys} only, without {_by_reason(left)}. Later: ownweights lock --upgrade {model}",
            about=_about(left),
        )


def _by_reason(missed: Sequence[Missed]) -> str:
    reasons: dict[str, list[str]] = {}
    for one in missed:
        reasons.setdefault(one.error.message, []).append(one.key)
    return "; ".join(f"{', '.join(keys)}: {reason}" for reason, keys in reasons.items())


def _about(missed: Sequence[Missed]) -> Literal["hub"] | None:
    return "hub" if all(isinstance(one.error, PlaceError) for one in missed) else None
