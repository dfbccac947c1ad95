"""What the local Hub serves: repositories of files in memory or on disk, named as the Hub names them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

CHUNK = 1 << 18
WEIGHTS = (".safetensors", ".gguf")


@dataclass(frozen=True)
class Blob:
    """One file, in memory or on disk."""

    content: bytes | Path

    @cached_property
    def size(self) -> int:
        return self.content.stat().st_size if isinstance(self.content, Path) else len(self.content)

    @cached_property
    def sha256(self) -> str:
        return self._digest(hashlib.sha256())

    @cached_property
    def git(self) -> str:
        """Git's blob name: sha1 over a header and the content."""
        return self._digest(hashlib.sha1(b"blob %d\0" % self.size))

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """The bytes of [start, stop) in chunks."""
        if isinstance(self.content, bytes):
            for at in range(start, stop, CHUNK):
                yield self.content[at : min(at + CHUNK, stop)]
            return
        with self.content.open("rb") as file:
            file.seek(start)
            while start < stop:
                chunk = file.read(min(CHUNK, stop - start))
                yield chunk
                start += len(chunk)

    def _digest(self, algorithm: hashlib._Hash) -> str:
        for chunk in self.read(0, self.size):
            algorithm.update(chunk)
        return algorithm.hexdigest()


@dataclass
class Repo:
    """A repository at one commit, which ``main`` names. ``lfs``: paths whose etag is a sha256 (default: weights)."""

    id: str
    commit: str = "1" * 40
    files: Mapping[str, bytes | Path] = field(default_factory=dict)
    lfs: set[str] | None = None
    license: str | None = "apache-2.0"
    gated: bool = False
    object_id: str | None = None

    @cached_property
    def blobs(self) -> dict[str, Blob]:
        return {path: Blob(content) for path, content in self.files.items()}

    def is_lfs(self, path: str) -> bool:
        return path.endswith(WEIGHTS) if self.lfs is None else path in self.lfs

    def etag(self, path: str) -> str:
        return self.blobs[path].sha256 if self.is_lfs(path) else self.blobs[path].git

    def info(self) -> dict[str, object]:
        return {
            "_id": self.object_id or hashlib.sha256(self.id.encode()).hexdigest()[:24],
            "id": self.id,
            "modelId": self.id,
            "sha": self.commit,
            "private": False,
            "gated": "manual" if self.gated else False,
            "tags": [f"license:{self.license}"] if self.license else [],
            "downloads": 0,
            "likes": 0,
            "siblings": [{"rfilename": path} for path in self.blobs],
        }

    def entry(self, path: str) -> dict[str, object]:
        blob = self.blobs[path]
        entry: dict[str, object] = {"type": "file", "path": path, "size": blob.size, "oid": blob.git}
        if self.is_lfs(path):
            pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n" % (
                blob.sha256.encode(),
                blob.size,
            )
            entry["oid"] = Blob(pointer).git
            entry["lfs"] = {"oid": blob.sha256, "size": blob.size, "pointerSize": len(pointer)}
        return entry
