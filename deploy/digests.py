"""Digests of files, and the two kinds of names that are made of them."""

from __future__ import annotations

import hashlib
from pathlib import Path


def of_file(path: Path) -> str:
    """sha256 of its content, in hex. For what is read at once; weights are hashed by ``weights.hashing``."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def of_bytes(content: bytes) -> str:
    """sha256, in hex."""
    return hashlib.sha256(content).hexdigest()


def git_blob(size: int) -> hashlib._Hash:
    """Git's name of a blob of that size, still to be fed with its content: sha1 over a header and that.

    A name, not a proof: where SHA-1 is barred for security (FIPS) it is allowed for this.
    """
    return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
