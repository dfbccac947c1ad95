"""A wish's source → its variants: which of the formats and precisions that are there, whatever the box.

Whatever is asked of a Hub goes through ``Request.folder``, so that a lock can also be derived again at the commits
that it names.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from deploy import catalog, hub, output
from deploy.catalog import Row
from deploy.config import ModelWish
from deploy.errors import ConfigError, LockError
from deploy.lockfile import Model, Variant
from deploy.resolving import listed, selection, source, variants
from deploy.resolving.folder import Disk, Folder, Repository
from deploy.resolving.selection import Format
from deploy.resolving.source import Source
from deploy.resolving.variants import Listed
from deploy.soundness import SHA1

ALL: tuple[Format, ...] = ("safetensors", "gguf", "pickle")


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One wish. ``base`` is the folder that a ``file:`` path counts from.

    ``locked`` is the model as it was locked, where exactly that is to be derived again: each repository at its
    locked commit, and of a catalogue row no more than could be had then. ``before`` is the model as it was locked,
    where it is resolved anew: what of it cannot be had now is kept, or, when ``comparing``, an error, because
    nothing is known of it.
    """

    wish: ModelWish
    base: Path
    locked: Model | None = None
    before: Model | None = None
    comparing: bool = False

    def repository(self, repo: str, revision: str) -> Repository:
        """Raises PlaceError."""
        locked = [one.origin for one in self.locked.variants] if self.locked else []
        same = [origin for origin in locked if origin.repo == repo]
        # One repository can be named twice, at two revisions.
        origin = min(same, key=lambda origin: origin.requested != revision, default=None)
        # A commit that is asked for is itself: what the lock says of it proves nothing.
        commit = origin.commit if origin and not SHA1.fullmatch(revision) else None
        snapshot = hub.resolve(repo, commit or revision)
        return Repository(msgspec.structs.replace(snapshot, requested=revision))

    def disk(self, name: str) -> Disk:
        """A folder, or a GGUF file with the other parts of it. Raises LockError for a path that is neither.

        Raises ConfigError for the home of a user that there is not.
        """
        try:
            path = (self.base / Path(name).expanduser()).absolute()
        except RuntimeError as error:
            raise ConfigError(f"`{name}`: this machine has no such user", hint="write the path without `~`") from error
        if path.is_dir():
            return Disk(path)
        if path.is_file() and path.suffix == ".gguf":
            return Disk(path.parent, only=path.name)
        problem = "is neither a folder nor a .gguf file" if path.exists() else "does not exist"
        raise LockError(f"`{path}` {problem}", hint="a relative path counts from the folder of models.toml")

    def folder(self, wanted: Source) -> Folder:
        """Of a source that names files, not a model."""
        return self.disk(wanted.name) if wanted.kind == "file" else self.repository(wanted.name, wanted.revision)


def variants_of(request: Request, wanted: Source) -> tuple[Variant, ...]:
    """Raises ConfigError for a source that names nothing, LockError and PlaceError where it cannot be locked."""
    row = catalog.find(wanted.name) if wanted.kind == "catalogue" else None

    def of(precision: str | None, formats: tuple[Format, ...]) -> tuple[Variant, ...]:
        if row:
            return listed.of_row(request, row, precision, formats)
        return _of_folder(request, request.folder(wanted), precision, formats)

    if request.wish.gguf is None:
        return of(request.wish.precision, ALL)
    rest = of(None, ("safetensors", "pickle"))
    return (*rest, *_beside(request, request.wish.gguf, rest, row))


def _of_folder(
    request: Request, folder: Folder, precision: str | None, formats: tuple[Format, ...]
) -> tuple[Variant, ...]:
    """Every format that is there; of several GGUFs beside safetensors none, unless a precision says which."""
    present = _present(request, folder, precision, formats)
    found = []
    for form in present:
        if form == "safetensors":
            found.append(variants.safetensors(folder, allowed=request.wish.allow_remote_code))
        elif form == "pickle":
            found.append(variants.pickle(folder, allowed=request.wish.allow_remote_code))
        elif precision is None and len(present) > 1 and _are_several(request, folder):
            continue
        else:
            found.append(variants.gguf(folder, selection.gguf(folder.paths, precision)))
        _refuse_other(found[-1], precision)
    return tuple(found)


def _present(
    request: Request, folder: Folder, precision: str | None, formats: tuple[Format, ...]
) -> tuple[Format, ...]:
    there = selection.formats(folder.paths)
    found = tuple(form for form in there if form in formats)
    if there and not found:
        raise LockError(
            "it has GGUF files only, and `gguf` names others",
            hint="leave `gguf` out, or let `source` name a repository of safetensors",
        )
    if not found:
        raise LockError(
            "there are neither safetensors with a config.json nor GGUF files",
            hint="look for a safetensors or GGUF copy of the model",
        )
    if found == ("pickle",) and not request.wish.allow_pickle:
        raise LockError(
            "there are pickles only (pytorch_model.bin), which can run code when they are loaded",
            hint="look for a safetensors copy; to trust this one, in models.toml: allow-pickle = true",
        )
    if precision and len(found) > 1:
        # Then the precision says which: a label that one of the GGUF names carries, or the folder's own.
        named = {name.upper() for name in selection.precisions(folder.paths)}
        return ("gguf",) if precision.upper() in named else ("safetensors",)
    return found


def _beside(request: Request, text: str, rest: tuple[Variant, ...], row: Row | None) -> tuple[Variant, ...]:
    """The GGUF that the wish names for itself; its precision picks there, unless it is that of the rest."""
    wanted = source.parse(text)
    if wanted.kind not in ("hf", "file"):
        raise ConfigError(
            f'gguf = "{text}" names no files', hint='write gguf = "hf:org/repo-GGUF" or gguf = "file:models/x.gguf"'
        )
    folder, precision = request.folder(wanted), request.wish.precision
    if precision and precision.lower() in {one.precision.lower() for one in rest}:
        if _are_several(request, folder):
            return ()
        precision = None
    return (variants.gguf(folder, selection.gguf(folder.paths, precision), Listed(row) if row else None),)


def _are_several(request: Request, folder: Folder) -> bool:
    """Whether a precision would have to choose among GGUFs; then says which could be named."""
    names = selection.precisions(folder.paths)
    if len(names) > 1:
        output.say(
            f"`{request.wish.name}`: no GGUF is locked, as there are several: {', '.join(names)}. "
            f'To lock one: precision = "{names[0]}" in models.toml'
        )
    return len(names) > 1


def _refuse_other(variant: Variant, precision: str | None) -> None:
    """A precision that was wished for and is not what is there. A GGUF's file name may say it in other words."""
    said = next((file.path for file in variant.files if file.path.endswith(".gguf")), "")
    if precision and precision.lower() != variant.precision.lower() and precision.lower() not in said.lower():
        raise LockError(
            f"its precision is {variant.precision}, not {precision}", hint="leave `precision` out of models.toml"
        )
