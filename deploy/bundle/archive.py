"""A bundle as it was carried here, read member by member: nothing of it is believed that does not hash.

Read straight from the stream; nothing is ever extracted by name.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator
from pathlib import Path

from deploy import bundle, digests
from deploy.bundle import BLOCK_BYTES, MANIFEST, MANIFEST_BYTES, Slot
from deploy.bundle.pieces import Reading
from deploy.errors import UserError, WeightsError


class Short(Exception):
    """The archive, or a piece of it, ends before the member does."""


class Archive:
    """Raises UserError where there is no beginning, WeightsError where it is not that of a bundle.

    What lies around the members' content, as far as it is here, is exactly what follows from the manifest: so
    whatever reads the tar finds nothing in it that the manifest does not name.
    """

    def __init__(self, path: Path) -> None:
        self._reading = Reading(path)
        self.name = self._reading.base.name
        text = self._manifest()
        self.manifest = bundle.decode(text, str(path))
        self.slots = bundle.slots(text, self.manifest)
        self._refuse_surplus()
        for what, begin, expected in self._frame():
            found = b"".join(self._reading.read(begin, begin + len(expected)))
            if not expected.startswith(found):
                raise self.damaged(
                    what, f"expected sha256 {digests.of_bytes(expected)}, found {digests.of_bytes(found)}"
                )

    @property
    def digest(self) -> str:
        """Of the manifest, which names all of it."""
        return self.slots[0].member.sha256

    @property
    def lock(self) -> Slot:
        return self.slots[1]

    @property
    def wishes(self) -> Slot:
        return self.slots[2]

    @property
    def rest(self) -> tuple[Slot, ...]:
        """History, wheels and weights."""
        return self.slots[3:]

    def gaps(self) -> list[str]:
        """What of it did not arrive, by name and bytes."""
        return self._reading.gaps(bundle.size(self.slots))

    def read(self, slot: Slot, offset: int = 0) -> Iterator[bytes]:
        """A member's content from ``offset`` in chunks of at most 1 MiB, unproved; fewer bytes where it is short."""
        return self._reading.read(slot.start + offset, slot.stop)

    def proved(self, slot: Slot) -> Iterator[bytes]:
        """The whole content; the last chunk is followed by Short or WeightsError where it is not the right one."""
        digest, count = hashlib.sha256(), 0
        for chunk in self.read(slot):
            digest.update(chunk)
            count += len(chunk)
            yield chunk
        if count < slot.member.size:
            raise Short(slot.member.name)
        if digest.hexdigest() != slot.member.sha256:
            raise self.damaged(_named(slot), f"expected sha256 {slot.member.sha256}, found {digest.hexdigest()}")

    def text(self, slot: Slot, most_bytes: int) -> str:
        """The content of a small member. Raises WeightsError where it is larger, damaged, or not there."""
        if slot.member.size > most_bytes:
            raise WeightsError(
                f"{_named(slot)} has {slot.member.size} bytes, must have at most {most_bytes}", where=self.name
            )
        try:
            return b"".join(self.proved(slot)).decode()
        except Short:
            raise self.incomplete() from None
        except UnicodeDecodeError as error:
            raise WeightsError(f"{_named(slot)} is no text: {error}", where=self.name) from error

    def damaged(self, what: str, wrong: str) -> WeightsError:
        return WeightsError(
            f"{what} was damaged on its way: {wrong}",
            where=self.name,
            hint="copy the bundle again, then the same command: it goes on here",
        )

    def incomplete(self) -> WeightsError:
        return WeightsError(
            f"the bundle is not all here: {'; '.join(self.gaps())}",
            where=self.name,
            hint="copy the rest, then the same command: what arrived is kept",
        )

    def _refuse_surplus(self) -> None:
        surplus = self._reading.length - bundle.size(self.slots)
        if surplus > 0:
            raise WeightsError(
                f"{surplus} bytes too many: {self._reading.length} lie in {self._reading.pieces} file(s), "
                f"the manifest names {bundle.size(self.slots)}",
                where=self.name,
                hint="copy the bundle again, into a folder where no pieces of another one lie",
            )

    def _frame(self) -> Iterator[tuple[str, int, bytes]]:
        """What lies around the contents, where, and its bytes."""
        for slot in self.slots:
            yield f"the header of {_named(slot)}", slot.begin, slot.header
            yield f"the padding behind {_named(slot)}", slot.stop, slot.padding
        yield "the end", self.slots[-1].end, bundle.END

    def _manifest(self) -> bytes:
        first = b"".join(self._reading.read(0, BLOCK_BYTES))
        try:
            length = tarfile.TarInfo.frombuf(first, "ascii", "strict").size
        except (tarfile.HeaderError, UnicodeDecodeError) as error:
            raise self._stranger() from error
        if not 0 < length <= MANIFEST_BYTES or first != bundle.header(MANIFEST, length):
            raise self._stranger()
        text = b"".join(self._reading.read(BLOCK_BYTES, BLOCK_BYTES + length))
        if len(text) < length:
            raise WeightsError(f"the bundle ends inside its manifest, after {len(text)} bytes", where=self.name)
        return text

    def _stranger(self) -> UserError:
        return UserError(
            f"no bundle of ownweights: it does not begin with `{MANIFEST}`",
            where=self.name,
            hint="ownweights bundle export FILE  # makes one; a tar that was packed again is none",
        )


def _named(slot: Slot) -> str:
    return f"`{slot.member.name}`"
