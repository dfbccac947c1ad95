"""Locked variants of what a test serves."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

from deploy.lockfile import Facts, File, Lock, Model, Origin, Place, Variant, write
from deploy.soundness import tree_digest
from tests.hubserver import Blob, Repo

HUB = Place(kind="hub")


def of(repo: Repo, *paths: str, places: tuple[Place, ...] = (HUB,)) -> Variant:
    """What a lock says of some files of a repository, or of all; gguf if there is one among them."""
    files = tuple(
        File(path=path, size=blob.size, sha256=blob.sha256, git=None if repo.is_lfs(path) else blob.git)
        for path, blob in sorted(repo.blobs.items())
        if not paths or path in paths
    )
    return _variant(files, Origin(kind="huggingface", repo=repo.id, commit=repo.commit), places)


def of_path(path: Path) -> Variant:
    """A file of this machine, or all files of a folder."""
    found = [path] if path.is_file() else sorted(entry for entry in path.rglob("*") if entry.is_file())
    files = tuple(
        File(
            path=entry.name if entry == path else str(entry.relative_to(path)),
            size=entry.stat().st_size,
            sha256=Blob(entry).sha256,
        )
        for entry in found
    )
    return _variant(files, Origin(kind="path"), (Place(kind="file", path=str(path)),))


def lock_file(folder: Path, *variants: Variant) -> Path:
    """A models.lock of one model with these variants."""
    path = folder / "models.lock"
    model = Model(name="chat", requested="test", variants=variants)
    path.write_text(write(Lock(generator="test", inputs="sha256:0", models=(model,))))
    return path


def noise(size: int, seed: str = "") -> bytes:
    """Bytes that no compression shortens, the same ones for the same seed."""
    return hashlib.shake_128(seed.encode()).digest(size)


def _variant(files: tuple[File, ...], origin: Origin, places: tuple[Place, ...]) -> Variant:
    form: Literal["safetensors", "gguf"] = (
        "gguf" if any(file.path.endswith(".gguf") for file in files) else "safetensors"
    )
    return Variant(
        format=form,
        precision="Q4_K_M" if form == "gguf" else "bf16",
        size=sum(file.size for file in files),
        tree=tree_digest(files),
        origin=origin,
        facts=Facts(),
        files=files,
        places=places,
    )
