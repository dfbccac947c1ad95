"""The memory bandwidth of this box, measured and kept for a day: a third of a second that no plan spends again."""

from __future__ import annotations

import time
from contextlib import suppress

import msgspec

from deploy import atomic, paths
from deploy.hardware import Hardware

KEPT_S = 86_400
"""A day."""


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """``hardware`` is the box's fingerprint: another one, or another number of cores, is measured again."""

    hardware: str
    bytes_per_s: float | None
    """None: it was tried, and could not be measured."""
    at: int
    """Unix seconds."""


def recalled(hardware: Hardware) -> Hardware:
    """With the bandwidth, where it was measured before. Reads one small file."""
    rate = _read(hardware)
    return hardware if rate is None else _with(hardware, rate.bytes_per_s)


def measured(hardware: Hardware, *, keep: bool = True) -> Hardware:
    """With the bandwidth: measured now where it was not today, as a busy box gives too little.

    With ``keep`` it is written down; a state dir that cannot be written costs only the time.
    """
    known = _read(hardware)
    if hardware.memory.bandwidth_bytes_per_s is not None and known is None:
        return hardware
    if known is not None and 0 <= time.time() - known.at < KEPT_S:
        return _with(hardware, known.bytes_per_s)
    # Not at the top: numpy takes as long to import as a plan to make.
    from deploy.hardware import bandwidth

    rate = Rate(hardware=hardware.fingerprint, bytes_per_s=bandwidth.measure(hardware.cores), at=int(time.time()))
    with suppress(OSError):
        if keep:
            atomic.write(paths.state_dir() / "bandwidth.json", msgspec.json.encode(rate))
    return _with(hardware, rate.bytes_per_s)


def _read(hardware: Hardware) -> Rate | None:
    try:
        rate = msgspec.json.decode((paths.state_dir() / "bandwidth.json").read_bytes(), type=Rate)
    except (OSError, ValueError, msgspec.MsgspecError):
        return None
    return rate if rate.hardware == hardware.fingerprint else None


def _with(hardware: Hardware, bytes_per_s: float | None) -> Hardware:
    memory = msgspec.structs.replace(hardware.memory, bandwidth_bytes_per_s=bytes_per_s)
    return msgspec.structs.replace(hardware, memory=memory)
