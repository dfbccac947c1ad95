"""A recorded file as people name one: a file, a pipe of another command, a FIFO. Bounded in bytes and in patience."""

from __future__ import annotations

import os
import select
from pathlib import Path

from deploy import output
from deploy.decoding import Undecodable

LARGEST_BYTES = 16 << 20
"""256 GPUs and a link for each pair are a quarter of it."""
CHUNK_BYTES = 1 << 16
SAID_S, PATIENCE_S = 2.0, 60.0


def read(path: Path, *, patience_s: float = PATIENCE_S) -> bytes:
    """The whole content. Raises OSError, and Undecodable for too much of it or for a pipe that nobody writes to."""
    # Else the opening of a FIFO waits for a writer, without end.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        content = bytearray()
        while chunk := _chunk(descriptor, path, patience_s):
            content += chunk
            if len(content) > LARGEST_BYTES:
                raise Undecodable(f"larger than {LARGEST_BYTES >> 20} MiB", None)
        return bytes(content)
    finally:
        os.close(descriptor)


def _chunk(descriptor: int, path: Path, patience_s: float) -> bytes:
    """Empty at the end. A FIFO without a writer counts as at its end for `read`, not for `select`."""
    said_s = min(SAID_S, patience_s)
    if not _ready(descriptor, said_s):
        output.say(f"waiting for what is written to `{path}`")
        if not _ready(descriptor, patience_s - said_s):
            raise Undecodable(f"nothing was written to it for {patience_s:.0f} s", None)
    return os.read(descriptor, CHUNK_BYTES)


def _ready(descriptor: int, timeout_s: float) -> bool:
    return bool(select.select([descriptor], [], [], timeout_s)[0])
