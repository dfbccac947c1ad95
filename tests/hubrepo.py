"""What the local Hub serves: repositories of files in memory, on disk or made up on the fly, named as the Hub does."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath

CHUNK = 1 << 20
WEIGHTS = (".safetensors", ".gguf")


@dataclass(frozen=True)
class Noise:
    """So many bytes that lie nowhere: made up while they are read, the same ones for the same seed.

    Every MiB begins with its own number, so that a block in the wrong place changes the hash.
    """

    size: int
    seed: str = ""

    def __len__(self) -> int:
        return self.size

    def read(self, start: int, stop: int) -> Iterator[memoryview]:
        while start < stop:
            number, offset = divmod(start, CHUNK)
            block = memoryview(number.to_bytes(8) + self._pattern)[offset : offset + stop - start]
            yield block
            start += len(block)

    @cached_property
    def _pattern(self) -> bytes:
        return hashlib.shake_128(self.seed.encode()).digest(CHUNK - 8)


Content = bytes | Path | Noise


@dataclass(frozen=True)
class Blob:
    """One file: its content, its size and its names."""

    content: Content

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

    @cached_property
    def pointer(self) -> Blob:
        """What git holds in place of an LFS file."""
        text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {self.size}\n"
        return Blob(text.encode())

    def read(self, start: int, stop: int) -> Iterator[bytes | memoryview]:
        """The bytes of [start, stop) in chunks."""
        if isinstance(self.content, Noise):
            yield from self.content.read(start, stop)
        elif isinstance(self.content, bytes):
            content = memoryview(self.content)
            for at in range(start, stop, CHUNK):
                yield content[at : min(at + CHUNK, stop)]
        else:
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
    """A repository at one commit. ``lfs``: paths whose etag is a sha256 (default: weights).

    ``card`` is the front matter of its README (``license_name``), ``xet`` the content-store hash of some paths;
    ``listing`` is said in place of the true list of files, entry by entry.
    """

    id: str
    commit: str = "1" * 40
    files: Mapping[str, Content] = field(default_factory=dict)
    lfs: set[str] | None = None
    license: str | None = "apache-2.0"
    gated: bool = False
    object_id: str | None = None
    card: Mapping[str, object] = field(default_factory=dict)
    xet: Mapping[str, str] = field(default_factory=dict)
    listing: list[dict[str, object]] | None = None

    @cached_property
    def blobs(self) -> dict[str, Blob]:
        return {path: Blob(content) for path, content in self.files.items()}

    def is_lfs(self, path: str) -> bool:
        return path.endswith(WEIGHTS) if self.lfs is None else path in self.lfs

    def etag(self, path: str) -> str:
        return self.blobs[path].sha256 if self.is_lfs(path) else self.blobs[path].git

    def info(self, *, blobs: bool = False) -> dict[str, object]:
        found: dict[str, object] = {
            "_id": self.object_id or hashlib.sha256(self.id.encode()).hexdigest()[:24],
            "id": self.id,
            "modelId": self.id,
            "sha": self.commit,
            "private": False,
            "gated": "manual" if self.gated else False,
            "tags": [f"license:{self.license}"] if self.license else [],
            "downloads": 0,
            "likes": 0,
            "createdAt": "2026-01-01T00:00:00.000Z",
            "lastModified": "2026-02-01T00:00:00.000Z",
            "siblings": [self._sibling(path) if blobs else {"rfilename": path} for path in self.blobs],
        }
        return found | ({"cardData": dict(self.card)} if self.card else {})

    def entries(self, folder: str = "", *, recursive: bool = True) -> list[dict[str, object]]:
        """What is below a folder, or only what is in it; files and folders, sorted."""
        if self.listing is not None:
            return self.listing
        if recursive and not folder:
            return self._all_entries
        kept = [entry for entry in self._all_entries if str(entry["path"]).startswith(f"{folder}/" if folder else "")]
        depth = len(PurePosixPath(folder).parts) + 1
        return [entry for entry in kept if recursive or len(PurePosixPath(str(entry["path"])).parts) == depth]

    def entry(self, path: str) -> dict[str, object]:
        blob = self.blobs[path]
        entry: dict[str, object] = {"type": "file", "path": path, "size": blob.size, "oid": blob.git}
        if self.is_lfs(path):
            entry["oid"] = blob.pointer.git
            entry["lfs"] = {"oid": blob.sha256, "size": blob.size, "pointerSize": blob.pointer.size}
        if path in self.xet:
            entry["xetHash"] = self.xet[path]
        return entry

    @cached_property
    def _all_entries(self) -> list[dict[str, object]]:
        folders = {str(parent) for path in self.blobs for parent in PurePosixPath(path).parents} - {"."}
        listed = [self.entry(path) for path in self.blobs]
        listed += [{"type": "directory", "path": path, "size": 0, "oid": Blob(path.encode()).git} for path in folders]
        return sorted(listed, key=lambda entry: str(entry["path"]))

    def _sibling(self, path: str) -> dict[str, object]:
        blob = self.blobs[path]
        sibling: dict[str, object] = {"rfilename": path, "size": blob.size, "blobId": blob.git}
        if self.is_lfs(path):
            sibling["blobId"] = blob.pointer.git
            sibling["lfs"] = {"sha256": blob.sha256, "size": blob.size, "pointerSize": blob.pointer.size}
        return sibling
