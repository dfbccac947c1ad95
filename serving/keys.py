"""Who may ask: the operator's own key in its file, and the ring of keys that the gateway accepts.

A key carries 256 random bits, so one sha256 is hash enough: there is no dictionary to slow down.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from collections.abc import Iterable
from pathlib import Path

from deploy.errors import UserError

PREFIX = "sk-ow-"
KEY_BYTES = 32


class Keyring:
    """The keys that open the gateway, as digests."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = frozenset(_digest(key.encode()) for key in keys)

    def knows(self, key: bytes) -> bool:
        """Constant time in what the caller controls: only the digest is compared, never the key."""
        return _digest(key) in self._digests


def operator_key(file: Path) -> str:
    """The operator's key; made at the first call, mode 0600, by whoever comes first.

    Raises UserError where the file cannot be written or read, is open to others, or holds no key.
    """
    try:
        if not file.exists():
            _make(file)
        return read_key(file)
    except OSError as error:
        raise UserError(
            f"the key file cannot be used: {error.strerror}",
            where=str(file),
            hint="set OWNWEIGHTS_HOME to a folder that you can write",
        ) from error


def read_key(file: Path) -> str:
    """The key in ``file``. Raises OSError, or UserError where others can read it or it is no key."""
    if stat.S_IMODE(file.stat().st_mode) & 0o077:
        raise UserError("the key file can be read by others", where=str(file), hint=f"chmod 600 {file}")
    key = file.read_text(encoding="ascii", errors="replace").strip()
    if not key.startswith(PREFIX) or len(key) < len(PREFIX) + KEY_BYTES or not key.isascii():
        raise UserError(f"the key file holds no key of the form {PREFIX}…", where=str(file), hint=f"rm {file}")
    return key


def _make(file: Path) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = file.with_name(f"{file.name}.{secrets.token_hex(8)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="ascii") as stream:
            stream.write(f"{PREFIX}{secrets.token_urlsafe(KEY_BYTES)}\n")
            stream.flush()
            os.fsync(stream.fileno())
        # A link, not a rename: it fails where the file exists, so the first maker's key is everybody's.
        file.hardlink_to(draft)
    except FileExistsError:
        return
    finally:
        draft.unlink()


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
