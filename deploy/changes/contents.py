"""What the files of a locked variant hold, to be shown: small files and the chat template, wherever they still are.

Nothing unproved is returned: a file hashes to what the variant says, and so does a template. First the cache and
this disk are asked, then the Hub at the variant's own commit, which has other bytes there than were locked only
if its history was rewritten.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from deploy import hub
from deploy.errors import LockError, PlaceError
from deploy.hub import RemoteFile, Snapshot
from deploy.lockfile import File, Variant
from deploy.resolving import facts, gguf_header
from deploy.resolving.folder import Repository, beginning
from deploy.resolving.gguf_header import Stream
from deploy.weights import cache

READING_S = 120.0
"""A Hub that took longer than this for a variant's files is asked for no more of them."""


class Contents:
    """Of one variant. The Hub is asked for its listing once at most, and only for what is not here."""

    def __init__(self, variant: Variant, clock: Callable[[], float] = time.monotonic) -> None:
        self.variant = variant
        self._clock = clock
        self._end_s = clock() + READING_S

    def read(self, file: File) -> bytes:
        """The bytes of one of its files. Raises PlaceError, which says why they are not to be had."""
        for here in self._here(file):
            if (content := _proved(here, file)) is not None:
                return content
        snapshot = self._snapshot()
        content = hub.small_file(snapshot.repo, snapshot.commit, self._remote(snapshot, file))
        if hashlib.sha256(content).hexdigest() != file.sha256:
            raise _rewritten(snapshot, file)
        return content

    def template(self) -> str | None:
        """The chat template's source; None: it has none. Raises PlaceError as ``read`` does."""
        digest = self.variant.facts.chat_template
        if digest is None:
            return None
        sources = self._headers() if self.variant.format == "gguf" else self._folder()
        for source in sources:
            if source is not None and hashlib.sha256(source.encode()).hexdigest() == digest:
                return source
        raise PlaceError("the chat template is no longer where it was when it was locked")

    def _folder(self) -> Iterator[str | None]:
        files = {file.path: file for file in self.variant.files}
        try:
            yield facts.template_source(files, lambda path: self.read(files[path]))
        except LockError as error:
            raise PlaceError(error.message) from error

    def _headers(self) -> Iterator[str | None]:
        """From the header of the file on this disk, which may be another one by now, then from the Hub's."""
        ggufs = [file for file in self.variant.files if file.path.endswith(".gguf")]
        if not ggufs:
            return
        file = min(ggufs, key=lambda file: file.path)
        for here in self._here(file):
            with suppress(OSError), beginning(here) as stream:
                yield _header(stream)
        snapshot = self._snapshot()
        self._remote(snapshot, file)
        with Repository(snapshot).open(file.path) as stream:
            yield _header(stream)

    def _here(self, file: File) -> Iterator[Path]:
        """Where it may lie on this machine."""
        for path in (cache.blob(self.variant, file), cache.source(self.variant, file)):
            with suppress(OSError):
                if path is not None and path.is_file():
                    yield path

    def _remote(self, snapshot: Snapshot, file: File) -> RemoteFile:
        """The file in the Hub's own listing, which must be the locked one."""
        listed = snapshot.by_path.get(file.path)
        if listed is None or (listed.sha256 or listed.git) != (file.git or file.sha256):
            raise _rewritten(snapshot, file)
        return listed

    def _snapshot(self) -> Snapshot:
        if isinstance(self._asked, PlaceError):
            raise self._asked
        if self._clock() > self._end_s:
            raise PlaceError(f"not asked for: the Hub took {READING_S:.0f} s for others", where=hub.address())
        return self._asked

    @cached_property
    def _asked(self) -> Snapshot | PlaceError:
        """Where no Hub answers, that takes seconds: once is enough."""
        origin = self.variant.origin
        if origin.repo is None or origin.commit is None:
            return PlaceError("it is no longer on this disk as it was locked")
        try:
            return hub.resolve(origin.repo, origin.commit)
        except PlaceError as error:
            return error


def _proved(path: Path, file: File) -> bytes | None:
    """The file's bytes, if they are what lies there."""
    with suppress(OSError), path.open("rb") as stream:
        content = stream.read(min(file.size, hub.SMALL_FILE_BYTES))
        if hashlib.sha256(content).hexdigest() == file.sha256:
            return content
    return None


def _header(stream: Stream) -> str | None:
    try:
        return facts.gguf_template(gguf_header.read(stream))
    except (ValueError, LockError):
        # Damaged: whether there is another copy is for the caller to see.
        return None


def _rewritten(snapshot: Snapshot, file: File) -> PlaceError:
    return PlaceError(
        f"`{snapshot.repo}` at commit {snapshot.commit} no longer has the `{file.path}` that was locked: "
        "its history was rewritten, or this Hub alters files",
        where=hub.address(),
    )
