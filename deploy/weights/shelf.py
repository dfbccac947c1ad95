"""What a mirror serves: the files of locked variants by repository, revision and path, in the Hub's own words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from deploy import digests
from deploy.licence import REFERENCE
from deploy.lockfile import File, Variant
from deploy.weights import cache, stamps


@dataclass(frozen=True)
class Entry:
    """One file, and where its bytes are."""

    file: File
    blob: Path

    @property
    def is_lfs(self) -> bool:
        """Then its sha256 names it, and what git holds is a pointer."""
        return self.file.git is None

    def unproved(self) -> tuple[int, ...] | None:
        """What tells the blob as it is now from how it was before, where no stamp vouches for that; None: one does."""
        try:
            found = self.blob.stat()
        except OSError:
            return ()
        stamp = stamps.get(self.blob)
        if stamp and stamp.sha256 == self.file.sha256 and stamp.fits(found):
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns

    @cached_property
    def _pointer(self) -> bytes:
        text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.file.sha256}\nsize {self.file.size}\n"
        return text.encode()

    @cached_property
    def _git(self) -> str:
        name = digests.git_blob(len(self._pointer))
        name.update(self._pointer)
        return self.file.git or name.hexdigest()

    def listed(self) -> dict[str, object]:
        """Its line in the tree. Without the content store's hash: there is no such store here."""
        line: dict[str, object] = {"type": "file", "path": self.file.path, "size": self.file.size, "oid": self._git}
        if self.is_lfs:
            line["lfs"] = {"oid": self.file.sha256, "size": self.file.size, "pointerSize": len(self._pointer)}
        return line

    def sibling(self, *, blobs: bool) -> dict[str, object]:
        """Its line in the model's description; with ``blobs`` also size and hashes."""
        line: dict[str, object] = {"rfilename": self.file.path}
        if blobs:
            line |= {"size": self.file.size, "blobId": self._git}
            if self.is_lfs:
                line["lfs"] = {"sha256": self.file.sha256, "size": self.file.size, "pointerSize": len(self._pointer)}
        return line


@dataclass
class Commit:
    """What there is of a repository at one commit. ``variant`` is the first that names it."""

    repo: str
    commit: str
    variant: Variant
    entries: dict[str, Entry] = field(default_factory=dict)

    def described(self, *, blobs: bool) -> dict[str, object]:
        licence = self.variant.licence
        terms = licence.id if licence else None
        described: dict[str, object] = {
            "id": self.repo,
            "modelId": self.repo,
            "sha": self.commit,
            "private": False,
            "gated": "manual" if licence and licence.gated else False,
            "tags": [],
            "downloads": 0,
            "likes": 0,
            "siblings": [entry.sibling(blobs=blobs) for _, entry in sorted(self.entries.items())],
        }
        if self.variant.origin.repo_id:
            described["_id"] = self.variant.origin.repo_id
        if terms and terms.startswith(REFERENCE):
            described |= {"tags": ["license:other"], "cardData": {"license_name": terms.removeprefix(REFERENCE)}}
        elif terms:
            described["tags"] = [f"license:{terms.lower()}"]
        return described

    def listed(self, folder: str) -> list[dict[str, object]]:
        """Every file below a folder; an empty name is the root."""
        below = f"{folder.rstrip('/')}/" if folder else ""
        return [entry.listed() for path, entry in sorted(self.entries.items()) if path.startswith(below)]


class Shelf:
    """All of it. ``main`` of a repository is the commit that was locked as ``main``, else the first one named."""

    def __init__(self, variants: Iterable[Variant]) -> None:
        self._commits: dict[tuple[str, str], Commit] = {}
        self._revisions: dict[str, dict[str, str]] = {}
        for variant in variants:
            if variant.origin.repo and variant.origin.commit:
                self._put(variant, variant.origin.repo, variant.origin.commit)
        for named in self._revisions.values():
            named.setdefault("main", next(iter(named.values())))

    def commits(self) -> tuple[Commit, ...]:
        return tuple(self._commits.values())

    def has(self, repo: str) -> bool:
        return repo in self._revisions

    def find(self, repo: str, revision: str) -> Commit | None:
        """What a branch, tag or commit names."""
        commit = self._revisions.get(repo, {}).get(revision)
        return self._commits[repo, commit] if commit else None

    def branches(self, repo: str) -> dict[str, str]:
        """Every name that is not a commit → the commit."""
        return {name: commit for name, commit in self._revisions[repo].items() if name != commit}

    def _put(self, variant: Variant, repo: str, commit: str) -> None:
        found = self._commits.setdefault((repo, commit), Commit(repo, commit, variant))
        for file in variant.files:
            found.entries[file.path] = Entry(file, cache.blob(variant, file))
        named = self._revisions.setdefault(repo, {})
        named[commit] = commit
        named.setdefault(variant.origin.requested or commit, commit)
