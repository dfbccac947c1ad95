"""Which process is meant: pid and start time together, because a pid alone may be someone else's by now.

Source: proc(5), field 22 of /proc/PID/stat; boot-relative clock ticks, so a restart of the box is told apart
by the boot id.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import msgspec


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Of a process on this machine, since this boot."""

    pid: int
    started: int
    """Clock ticks between boot and its start."""
    boot: str

    @property
    def alive(self) -> bool:
        return of(self.pid) == self


def of(pid: int) -> Identity | None:
    """None where no such process is, or where it is a zombie: dead, only not yet collected."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    # The command name in parentheses may itself hold blanks and parentheses: count from the last one.
    fields = text.rpartition(")")[2].split()
    if fields[0] in ("Z", "X"):
        return None
    return Identity(pid=pid, started=int(fields[19]), boot=boot)


def end(identity: Identity, *, grace_s: float) -> bool:
    """SIGTERM to its process group, SIGKILL after ``grace_s``; True when it is gone.

    The group is signalled because engines have helpers that outlive them. Only a group leader is ended as a
    group: anything else would take strangers along.
    """
    for number, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 5.0)):
        if not identity.alive:
            return True
        try:
            if os.getpgid(identity.pid) == identity.pid:
                os.killpg(identity.pid, number)
            else:
                os.kill(identity.pid, number)
        except ProcessLookupError:
            return True
        deadline = time.monotonic() + wait_s
        while identity.alive and time.monotonic() < deadline:
            time.sleep(0.02)
    return not identity.alive
