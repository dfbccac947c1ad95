"""Variants for the lock, one maker per format: what a folder's files are, say and need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from deploy import catalog
from deploy.catalog import Gguf, Row, Weights
from deploy.licence import REFERENCE
from deploy.lockfile import Facts, File, Licence, Origin, Tensors, Variant
from deploy.resolving import attention, facts, headers, remote_code, selection
from deploy.resolving.facts import Described
from deploy.resolving.folder import Folder, purl
from deploy.resolving.selection import Format
from deploy.soundness import tree_digest


class Listed(NamedTuple):
    """What the catalogue says of a variant: its row, and of safetensors which of the row's."""

    row: Row
    weights: Weights | None = None

    @property
    def facts(self) -> Facts:
        return self.row.facts(self.weights)


def pinned(row: Row, gguf: Gguf) -> Variant:
    """Of a row that carries commit, size and sha256: no network, no disk."""
    file = gguf.pin
    if file is None or gguf.revision is None:
        raise AssertionError("not a pinned row")
    origin = Origin(
        kind="huggingface",
        repo=gguf.hf_repo,
        commit=gguf.revision,
        purl=purl(gguf.hf_repo, gguf.revision),
    )
    return Variant(
        format="gguf",
        precision=facts.label(file.path) or facts.UNKNOWN,
        size=file.size,
        tree=tree_digest((file,)),
        origin=origin,
        licence=Licence(id=row.licence.name) if row.licence.name else None,
        quantized_by=row.quantizer(gguf.hf_repo),
        facts=row.facts(),
        files=(file,),
        places=gguf.places,
    )


def safetensors(folder: Folder, *, allowed: Sequence[str], listed: Listed | None = None) -> Variant:
    """Of a Hugging Face folder. Its small files are read: their sha256 is on no Hub.

    ``allowed`` are hashes of code that may be run (``sha256:…``). Raises LockError, PlaceError.
    """
    folder.fetch(selection.texts(folder.paths))
    paths = selection.safetensors(folder.paths, folder.read)
    weights = [path for path in paths if path.endswith(".safetensors")]
    tensors = headers.safetensors(folder, weights)
    return _configured("safetensors", folder, paths, allowed=allowed, listed=listed, tensors=tensors)


def pickle(folder: Folder, *, allowed: Sequence[str]) -> Variant:
    """The same of PyTorch's own format, whose tensors cannot be counted without running it."""
    folder.fetch(selection.texts(folder.paths))
    paths = selection.pickles(folder.paths, folder.read)
    return _configured("pickle", folder, paths, allowed=allowed, listed=None, tensors=None)


def gguf(folder: Folder, paths: Sequence[str], listed: Listed | None = None) -> Variant:
    """Of a GGUF file, or of all parts of a split one; the facts are in the first one's header."""
    header, tensors = headers.gguf(folder, paths)
    files = folder.files((*paths, *selection.legal(folder.paths)))
    described = facts.of_gguf(header, paths[0])
    return _variant("gguf", folder, described, files=files, code=(), listed=listed, tensors=tensors)


def _configured(
    kind: Format,
    folder: Folder,
    paths: Sequence[str],
    *,
    allowed: Sequence[str],
    listed: Listed | None,
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
    return _variant(kind, folder, described, files=files, code=code, listed=listed, tensors=tensors)


def _variant(
    kind: Format,
    folder: Folder,
    described: Described,
    *,
    files: tuple[File, ...],
    code: tuple[File, ...],
    listed: Listed | None,
    tensors: Tensors | None,
) -> Variant:
    known = facts.completed(described.facts, listed.facts) if listed else described.facts
    return Variant(
        format=kind,
        precision=described.precision,
        size=sum(file.size for file in files),
        tree=tree_digest(files),
        origin=folder.origin,
        licence=_licence(folder, files, listed.row if listed else None),
        quantized_by=listed.row.quantizer(folder.origin.repo) if listed and folder.origin.repo else None,
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
    listed = row.licence.name if row else None
    name = listed or own if not own or own.startswith(REFERENCE) else own
    return Licence(id=name, file=path, text=text, gated=folder.gated) if name else None
