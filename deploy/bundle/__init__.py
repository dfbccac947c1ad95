"""A bundle: a deployment as one archive, for a box without a network. The format; packing and unpacking use it.

A plain POSIX tar, not compressed, that `tar -xf` reads:

    manifest.json                       every other member with its size and sha256, and what made it
    models.lock, models.toml
    history/<sha256>.lock               earlier locks, oldest first
    core/*.whl                          what our own environment is made of (`make deploy` from PIP_FIND_LINKS=core)
    wheels/*.whl                        the engines' environments
    hub/models--org--name/blobs/<etag>  weights, in the layout of the Hugging Face cache, small files first

The manifest decides every byte of the headers and every offset. So a writer that was interrupted knows where it was,
and a reader interprets nothing but the manifest: a header must be the one that follows from it, and a link, a device
or a member by another name cannot be in a bundle at all.
"""

from __future__ import annotations

import platform
import re
import sys
import tarfile
from collections.abc import Iterable, Iterator
from typing import Annotated, Literal, NamedTuple

import msgspec

from deploy import __version__, digests, paths
from deploy.errors import WeightsError
from deploy.lockfile import File, Variant
from deploy.soundness import SHA256
from deploy.weights import cache

MANIFEST, LOCK, WISHES = "manifest.json", "models.lock", "models.toml"
HISTORY, CORE, WHEELS, HUB = "history/", "core/", "wheels/", "hub/"
NAME = re.compile(
    r"models\.lock|models\.toml|history/[0-9a-f]{64}\.lock|(core|wheels)/[A-Za-z0-9][A-Za-z0-9._+!-]*\.whl"
    r"|hub/models--[A-Za-z0-9._-]+/blobs/[0-9a-f]{40,64}"
)
BLOCK_BYTES = 512
MANIFEST_BYTES = 64 << 20
"""More than any deployment's has: what claims to be longer is no manifest."""
MEMBER_BYTES = 1 << 50
MEMBERS = 100_000
END = bytes(2 * BLOCK_BYTES)


class Member(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of the archive."""

    name: str
    size: Annotated[int, msgspec.Meta(ge=0, le=MEMBER_BYTES)]
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What follows, in this order, and where it was made."""

    format: Literal[1] = 1
    generator: str
    platform: str
    python: str
    """The interpreter's cache tag: wheels are built for one."""
    lock: str
    """Digest of the lock's canonical form."""
    members: Annotated[tuple[Member, ...], msgspec.Meta(max_length=MEMBERS)]

    @property
    def fits(self) -> bool:
        """Whether its wheels are for this platform and Python."""
        return (self.platform, self.python) == here()


class Slot(NamedTuple):
    """Where a member lies in the archive: its header begins at ``begin``, its content at ``start``."""

    member: Member
    header: bytes
    begin: int

    @property
    def start(self) -> int:
        return self.begin + len(self.header)

    @property
    def stop(self) -> int:
        """Where its content ends."""
        return self.start + self.member.size

    @property
    def padding(self) -> bytes:
        """tar works in blocks."""
        return bytes(-self.member.size % BLOCK_BYTES)

    @property
    def end(self) -> int:
        return self.stop + len(self.padding)


def here() -> tuple[str, str]:
    """This platform and this Python, as wheels depend on them."""
    return f"{sys.platform}-{platform.machine()}", sys.implementation.cache_tag


def blob(variant: Variant, file: File) -> str:
    """The name of a file's member: where it lies in the cache."""
    return HUB + cache.blob(variant, file).relative_to(paths.hub_cache()).as_posix()


def manifest(lock_digest: str, members: Iterable[Member]) -> Manifest:
    """Of a bundle that is made here and now."""
    system, python = here()
    return Manifest(
        generator=f"ownweights {__version__}",
        platform=system,
        python=python,
        lock=lock_digest,
        members=tuple(members),
    )


def encode(found: Manifest) -> bytes:
    """Its one text: the first member's content."""
    return msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n"


def decode(text: bytes, where: str) -> Manifest:
    """Raises WeightsError where it is none, or names a member that no bundle has."""
    try:
        found = msgspec.json.decode(text, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise WeightsError(f"no bundle that this ownweights reads: {error}", where=where) from error
    names = [member.name for member in found.members]
    for member in found.members:
        if not NAME.fullmatch(member.name) or not SHA256.fullmatch(member.sha256):
            raise WeightsError(f"the manifest has an impossible member `{member.name}`", where=where)
    if names[:2] != [LOCK, WISHES] or len(set(names)) != len(names):
        raise WeightsError("the manifest does not begin with the lock, or names a member twice", where=where)
    return found


def slots(text: bytes, found: Manifest) -> tuple[Slot, ...]:
    """The whole archive but for its end: the manifest itself, then its members."""
    first = Member(name=MANIFEST, size=len(text), sha256=digests.of_bytes(text))
    return tuple(_slots((first, *found.members)))


def size(found: tuple[Slot, ...]) -> int:
    """Bytes of the archive, its end included."""
    return found[-1].end + len(END)


def header(name: str, length: int) -> bytes:
    """Of a regular file that belongs to nobody and has no date: the same bytes on every machine."""
    entry = tarfile.TarInfo(name)
    entry.size = length
    return entry.tobuf(tarfile.PAX_FORMAT)


def _slots(members: Iterable[Member]) -> Iterator[Slot]:
    position = 0
    for member in members:
        slot = Slot(member, header(member.name, member.size), position)
        position = slot.end
        yield slot
