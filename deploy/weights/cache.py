"""The Hugging Face cache layout: where a variant's bytes lie, readable by every tool that knows that cache.

    models--org--name/blobs/<etag>                    content; etag = sha256, or the git sha1 of small files
                      snapshots/<commit>/<path>       -> ../../blobs/<etag>
                      refs/pinned-<commit12>          the commit: keeps `hf cache prune` away

``trees/<commit>.json`` is never written: huggingface_hub takes it for the *whole* listing of the commit, and a
lock may hold one file out of many, so other tools would no longer find the rest.
Source: huggingface_hub 2.4, ``file_download`` and ``utils/_cache_manager``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from deploy import atomic, flock, output, paths
from deploy.errors import LockError, UserError
from deploy.lockfile import File, Variant

BLOB = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
PART = re.compile(rf"({BLOB.pattern})\.part")
READ = re.compile(r".*\.(safetensors|gguf|bin|pt|pth|ckpt|pkl|json|py|jinja|model|spm|txt|tiktoken)", re.IGNORECASE)
"""What an engine may take for weights, configuration, tokenizer, template or code when it is handed a folder."""
CACHEDIR_TAG = """\
Signature: 8a477f597d28d172789f06886806bc55
# A cache directory: what lies here can be fetched again. Tag as of the Cache Directory Tagging Specification.
"""


def used() -> AbstractContextManager[None]:
    """Nothing is removed from it while the block runs: what has been found here stays until it is linked."""
    return flock.shared(paths.weights_lock_file(), waiting="weights are being removed by `gc`: waiting for it")


def folder(variant: Variant) -> Path:
    """The repository's folder; for a file of this machine one named after its tree."""
    if variant.origin.kind == "path":
        return paths.hub_cache() / f"models--file--{_tree(variant)[:12]}"
    if variant.origin.repo is None:
        raise LockError(f"the lock names no repository for {variant.key}", hint="ownweights lock")
    return paths.hub_cache() / f"models--{variant.origin.repo.replace('/', '--')}"


def commit(variant: Variant) -> str:
    """40 hex digits: the pinned commit; for a file of this machine the head of its tree."""
    if variant.origin.kind == "path":
        return _tree(variant)[:40]
    if variant.origin.commit is None:
        raise LockError(f"the lock names no commit for {variant.key}", hint="ownweights lock")
    return variant.origin.commit


def snapshot(variant: Variant) -> Path:
    """The folder that looks like the repository at the pinned commit."""
    return folder(variant) / "snapshots" / commit(variant)


def blob(variant: Variant, file: File) -> Path:
    """The content of one file."""
    return folder(variant) / "blobs" / file.blob


def part(variant: Variant, file: File) -> Path:
    """The same while it is not complete."""
    return folder(variant) / "blobs" / f"{file.blob}.part"


def parts(blobs: Path) -> Iterator[tuple[Path, str]]:
    """Every unfinished blob of ours in such a folder, and the name it is to get."""
    for path in sorted(blobs.glob("*.part")):
        if PART.fullmatch(path.name):
            yield path, path.stem


def weights(variant: Variant) -> Path:
    """What an engine is handed: the first .gguf file, or the snapshot folder of every other format."""
    if variant.format != "gguf":
        return snapshot(variant)
    found = sorted(file.path for file in variant.files if file.path.endswith(".gguf"))
    if not found:
        raise LockError(f"the lock lists no .gguf file for {variant.key}", hint="ownweights lock")
    return snapshot(variant) / found[0]


def source(variant: Variant, file: File) -> Path | None:
    """Where a file place says the file lies on this machine: the path itself, or under it where that is a folder."""
    for place in variant.places:
        if place.kind == "file" and place.path:
            found = paths.expanded(place.path)
            return found / file.path if found.is_dir() else found
    return None


def strays(variant: Variant, beside: Iterable[Variant] = ()) -> Iterator[Path]:
    """What lies in the snapshot folder and could reach an engine, but belongs to none of these variants.

    The cache is shared: other tools' links to other blobs of the same repository are no strays if no engine reads such
    files from a folder, or if it is handed a single file; .gguf files are none beside safetensors.
    """
    base = snapshot(variant)
    ours = {snapshot(known) / file.path for known in (variant, *beside) for file in known.files}
    for root, folders, files in os.walk(base):
        for path in (Path(root, name) for name in (*folders, *files)):
            entry = path.is_symlink() or not path.is_dir()
            if entry and path not in ours and not _harmless(variant, path):
                yield path


def hop(link: Path) -> Path | None:
    """Where a symlink points to, one step; None for what is none."""
    return spot(link.parent / link.readlink()) if link.is_symlink() else None


def spot(path: Path) -> Path:
    """One name for one directory entry: links in the folders above it are followed, it itself is not."""
    return path.parent.resolve() / path.name


def link(variant: Variant, beside: Iterable[Variant] = ()) -> None:
    """Make the snapshot, last of all, once every blob is there. Writes only what differs.

    Stray links are taken out (their blobs stay), but not those of the variants ``beside`` it; stray files of their own
    are left for the user to judge.
    """
    for stray in list(strays(variant, beside)):
        if stray.is_symlink():
            stray.unlink()
            output.say(f"unlinked `{stray}`: not in the lock (its content stays in the cache)")
    for file in variant.files:
        symlink(snapshot(variant) / file.path, blob(variant, file))
    try:
        _keep(folder(variant) / "refs" / f"pinned-{commit(variant)[:12]}", commit(variant), scratch=folder(variant))
        _keep(paths.hub_cache() / "CACHEDIR.TAG", CACHEDIR_TAG, replace=False)
    except OSError as error:
        # The weights are there, whoever owns the cache: only what protects them is not.
        why = f"`{folder(variant)}` cannot be written ({error.strerror})"
        output.warn(f"{why}: there is no ref that keeps `hf cache prune` away from these weights", about=why)


def symlink(path: Path, target: Path) -> None:
    """A relative link where both lie in the cache, else an absolute one; replaced in one step.

    Raises UserError for a folder in its place.
    """
    inside = target.is_relative_to(paths.hub_cache())
    wanted = os.path.relpath(target, path.parent) if inside else str(target)
    if path.is_symlink() and str(path.readlink()) == wanted:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = atomic.temporary(path.parent)
    try:
        beside.symlink_to(wanted)
        beside.replace(path)
    except IsADirectoryError as error:
        raise UserError("a folder is in the way of a file", where=str(path), hint=f"rm -r '{path}'") from error
    finally:
        beside.unlink(missing_ok=True)


def _tree(variant: Variant) -> str:
    return variant.tree.removeprefix("sha256:")


def _harmless(variant: Variant, path: Path) -> bool:
    target = hop(path)
    own = target is not None and target.parent == (folder(variant) / "blobs").resolve()
    return own and (variant.format == "gguf" or path.suffix == ".gguf" or not READ.fullmatch(path.name))


def _keep(path: Path, text: str, *, replace: bool = True, scratch: Path | None = None) -> None:
    """``scratch``, because huggingface_hub takes every file in ``refs`` for a ref, and an odd one for damage."""
    if not path.exists() or (replace and path.read_text() != text):
        atomic.write(path, text.encode(), scratch=scratch)
