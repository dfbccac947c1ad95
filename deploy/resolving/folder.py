"""Where a model's files lie while it is being locked: a repository at a commit, or a folder of this disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Protocol

from deploy import hub, licence, output
from deploy.errors import LockError
from deploy.hub import Snapshot
from deploy.lockfile import File, Origin, Place
from deploy.resolving import selection
from deploy.resolving.gguf_header import Stream
from deploy.soundness import is_safe

PIECE_BYTES = 1 << 17
"""Holds the header of nearly every shard of safetensors."""
HEADER_BYTES = 1 << 26
"""A GGUF header is as long as its vocabulary: 6 MB for 150 000 tokens."""
SMALL_BYTES, SMALL_FILES = 1 << 28, 1000
"""All that is fetched whole while locking: a repository with more than this beside its weights is no model."""
SLOW_BYTES = 1_000_000_000
"""Hashing more than this takes long enough to say so."""


class Folder(Protocol):
    """What the makers of variants need to know of it."""

    paths: tuple[str, ...]
    """Of its files, relative, with ``/``."""
    origin: Origin
    place: Place
    gated: bool | None

    def size(self, path: str) -> int: ...

    def read(self, path: str) -> bytes:
        """A small file, whole."""

    def fetch(self, paths: Sequence[str]) -> None:
        """Have ready, at once, those of these small files that will have to be read for their hash."""

    def open(self, path: str) -> AbstractContextManager[Stream]:
        """A file of any size, to be read from its start as far as needed."""

    def files(self, paths: Sequence[str]) -> tuple[File, ...]:
        """With their hashes."""

    def licence(self, text: str | None) -> str | None:
        """Id of the licence; ``text`` is the sha256 of its text, where there is one."""


class Repository:
    """A repository of the Hub at one commit. Small files are fetched once; of the others what is read of them."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.paths = snapshot.paths
        self.origin = Origin(
            kind="huggingface",
            repo=snapshot.repo,
            repo_id=snapshot.repo_id,
            requested=snapshot.requested,
            commit=snapshot.commit,
            purl=purl(snapshot.repo, snapshot.commit),
        )
        self.place = Place(kind="hub")
        self.gated: bool | None = snapshot.gated
        self._snapshot = snapshot
        self._small: dict[str, bytes] = {}

    def size(self, path: str) -> int:
        return self._snapshot.file(path).size

    def read(self, path: str) -> bytes:
        self._load((path,))
        return self._small[path]

    def fetch(self, paths: Sequence[str]) -> None:
        """The sha256 of what is in git itself is on no Hub."""
        self._load([path for path in paths if self._snapshot.file(path).sha256 is None])

    def open(self, path: str) -> AbstractContextManager[Stream]:
        file = self._snapshot.file(path)

        def piece(start: int, stop: int) -> bytes:
            return hub.part(self._snapshot.repo, self._snapshot.commit, file, start, stop)

        return nullcontext(Pieces(path, file.size, piece))

    def files(self, paths: Sequence[str]) -> tuple[File, ...]:
        self.fetch(paths)
        return tuple(self._file(path) for path in paths)

    def licence(self, text: str | None) -> str | None:
        # A text without a tag has no other name than the repository's.
        tag = self._snapshot.license or ("other" if text else None)
        return licence.spdx(tag, self._snapshot.license_name, self._snapshot.repo)

    def _load(self, paths: Sequence[str]) -> None:
        wanted = [self._snapshot.file(path) for path in paths if path not in self._small]
        count = len(wanted) + len(self._small)
        total = sum(file.size for file in wanted) + sum(map(len, self._small.values()))
        if total > SMALL_BYTES or count > SMALL_FILES:
            raise LockError(
                f"`{self._snapshot.repo}` has more beside its weights than a model needs: "
                f"{count} files, {output.size(total)}"
            )
        if wanted:
            self._small |= hub.small_files(self._snapshot.repo, self._snapshot.commit, wanted)

    def _file(self, path: str) -> File:
        file = self._snapshot.file(path)
        if file.sha256:
            return File(path=path, size=file.size, sha256=file.sha256, xet=file.xet)
        return File(path=path, size=file.size, sha256=hashlib.sha256(self._small[path]).hexdigest(), git=file.git)


class Disk:
    """A folder of this disk, without those below it; or ``only`` one GGUF in it, with all its parts."""

    gated: bool | None = None

    def __init__(self, folder: Path, only: str | None = None) -> None:
        names = tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_file()))
        self.paths = selection.siblings(only, names) if only else names
        self.origin = Origin(kind="path")
        self.place = Place(kind="file", path=str(folder))
        self._folder = folder

    def size(self, path: str) -> int:
        return (self._folder / path).stat().st_size

    def read(self, path: str) -> bytes:
        return (self._folder / path).read_bytes()

    def fetch(self, paths: Sequence[str]) -> None:
        """They are here."""

    def open(self, path: str) -> AbstractContextManager[Stream]:
        return beginning(self._folder / path)

    def files(self, paths: Sequence[str]) -> tuple[File, ...]:
        if strange := next((path for path in paths if not is_safe(path)), None):
            raise LockError(
                f"{strange!r} cannot be the name of a locked file", where=str(self._folder), hint="rename it"
            )
        total = sum(map(self.size, paths))
        if total > SLOW_BYTES:
            output.say(f"hashing {output.size(total)} in {self._folder}")
        return tuple(File(path=path, size=self.size(path), sha256=self._sha256(path)) for path in paths)

    def licence(self, text: str | None) -> str | None:
        return None

    def _sha256(self, path: str) -> str:
        with (self._folder / path).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()


class Pieces:
    """A file's beginning, fetched in pieces that grow, as far as it is read."""

    def __init__(self, name: str, size: int, piece: Callable[[int, int], bytes]) -> None:
        self._name = name
        self._size = size
        self._piece = piece
        self._content = bytearray()
        self._position = 0

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes, fewer at the end. Raises LockError beyond what any header takes."""
        start, stop = self._position, min(self._position + size, self._size)
        if stop > len(self._content):
            if stop > HEADER_BYTES:
                raise LockError(f"the header of `{self._name}` does not end within {output.size(HEADER_BYTES)}")
            have = len(self._content)
            reach = min(self._size, max(stop, PIECE_BYTES, min(4 * have, HEADER_BYTES)))
            self._content += self._piece(have, reach)
        found = bytes(self._content[start:stop])
        self._position = start + len(found)
        return found

    def seek(self, offset: int, whence: int, /) -> int:
        """From the current position only (1)."""
        self._position += offset
        return self._position


@contextmanager
def beginning(path: Path) -> Iterator[Stream]:
    """Of a file of this disk, of which no more is read than of one of the Hub: a header may come from anyone."""
    with path.open("rb") as file:

        def piece(start: int, stop: int) -> bytes:
            file.seek(start)
            return file.read(stop - start)

        yield Pieces(path.name, path.stat().st_size, piece)


def purl(repo: str, commit: str) -> str:
    """The package URL of a repository at a commit."""
    return f"pkg:huggingface/{repo}@{commit}"
