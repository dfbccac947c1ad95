"""How fast weights came here: the rate of the last pull that fetched enough to tell, for estimates."""

from __future__ import annotations

import time
from typing import Annotated

import msgspec

from deploy import atomic, paths

ENOUGH_BYTES = 16 << 20
"""Below this a rate says more about the handshake than about the line."""


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    bytes_per_s: Annotated[float, msgspec.Meta(gt=0)]
    at: int
    """Unix seconds."""


def note(fetched_bytes: int, elapsed_s: float) -> None:
    """Keep it. A state dir that cannot be written costs an estimate, nothing more."""
    if fetched_bytes < ENOUGH_BYTES or elapsed_s <= 0:
        return
    pace = Pace(bytes_per_s=fetched_bytes / elapsed_s, at=int(time.time()))
    try:
        atomic.write(paths.state_dir() / "pace.json", msgspec.json.encode(pace))
    except OSError:
        return


def read() -> Pace | None:
    """None where nothing was pulled here yet."""
    try:
        return msgspec.json.decode((paths.state_dir() / "pace.json").read_bytes(), type=Pace)
    except (OSError, ValueError, msgspec.MsgspecError):
        return None
