"""One engine as the operating system sees it: a process group of its own, that outlives us.

Its exit is noticed through a pidfd, which works for our own children and for those of a gateway before us.
Source: pidfd_open(2), proc(5), setsid(2).
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket as sockets
import struct
import subprocess
from contextlib import suppress
from pathlib import Path

from deploy.engine import Command
from serving import identity
from serving.identity import Identity

INHERITED = ("PATH", "HOME", "LANG", "LANGUAGE", "TZ")
"""All that an engine gets of our environment, with LC_*: keys and tokens stay here."""
LOG_BYTES = 16 * 1000 * 1000
"""A log beyond this becomes ``.1`` at the next start."""


class Child:
    """A running engine, ours or one that a gateway before us started."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._status: int | None = None
        self._ooms = _oom_kills()
        self._gone = asyncio.Event()
        self._pidfd = os.pidfd_open(pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._exited)

    @property
    def gone(self) -> bool:
        """Ended, or none of our business any more."""
        return self._gone.is_set()

    async def exits_within(self, limit_s: float) -> bool:
        try:
            async with asyncio.timeout(limit_s):
                await self._gone.wait()
        except TimeoutError:
            return False
        return True

    async def end(self, *, grace_s: float) -> None:
        """SIGTERM to the group, SIGKILL after ``grace_s``; returns when it is gone."""
        try:
            if not self.gone and grace_s > 0:
                self._signal(signal.SIGTERM)
                # One that is stopped hears nothing until it goes on.
                self._signal(signal.SIGCONT)
                await self.exits_within(grace_s)
        finally:
            # Also when the wait is cancelled: whoever is in such a hurry does not want it to stay.
            if not self.gone:
                self._signal(signal.SIGKILL)
        await self._gone.wait()

    def release(self) -> None:
        """Look away: it goes on running, and a later gateway may adopt it."""
        if not self.gone:
            self._unwatch()
            self._gone.set()

    def fate(self) -> str:
        """How it ended. An exit code means little: vLLM ends with 0 after its worker has died."""
        if self._status is None:
            return "the engine ended"
        if self._status >= 0:
            return f"the engine ended with exit code {self._status}"
        number = signal.Signals(-self._status)
        if number is signal.SIGKILL and _oom_kills() > self._ooms:
            return "the kernel ended the engine because memory ran out (OOM)"
        if number is signal.SIGILL:
            return "the engine used an instruction that this CPU does not have (SIGILL)"
        return f"the engine was ended by {number.name}"

    def cpu_s(self) -> float:
        """CPU time of its whole session so far. An engine at work on a long prompt spends it, a hung one does not."""
        ticks = 0
        for path in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                fields = path.read_text().rpartition(")")[2].split()
                if int(fields[3]) == self.pid:
                    ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def _exited(self) -> None:
        # Helpers that outlive it. Before it is collected, because until then nobody else can get its number.
        self._signal(signal.SIGKILL)
        with suppress(ChildProcessError):  # an adopted one is collected by init
            found = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
            if found:
                self._status = found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
        self._unwatch()
        self._gone.set()

    def _unwatch(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)


def open_log(log: Path) -> int:
    """Make room for another start in it; returns its size. What is printed from now on comes after that byte."""
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.replace(log.with_name(f"{log.name}.1"))
    log.touch(mode=0o600)
    return log.stat().st_size


def spawn(command: Command, *, log: Path, folder: Path) -> Child:
    """Start it in a session of its own, output appended to ``log``. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    inherited = {name: value for name, value in os.environ.items() if name in INHERITED or name.startswith("LC_")}
    with log.open("ab") as sink:
        popen = subprocess.Popen(
            command.argv,
            env=inherited | command.env,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # Its sockets and files are for us alone.
            umask=0o077,
        )
    # Collected by `Child`, through its pidfd; Popen would warn of a child that it never waited for.
    popen.returncode = 0
    return Child(popen.pid)


def adopt(found: Identity) -> Child | None:
    """The process that was meant, watched from now on; None where it is gone."""
    try:
        child = Child(found.pid)
    except ProcessLookupError:
        return None
    # Only now is the number held by our pidfd: what was true before may have been about someone else.
    if not found.alive:
        child.release()
        return None
    return child


def listener(path: str) -> Identity | None:
    """The engine that listens on a socket of ours, though no record tells of it; None for anything else."""
    try:
        with sockets.socket(sockets.AF_UNIX) as client:
            client.settimeout(1.0)
            client.connect(path)
            credentials = client.getsockopt(sockets.SOL_SOCKET, sockets.SO_PEERCRED, struct.calcsize("3i"))
        pid, _, _ = struct.unpack("3i", credentials)
        # What does not lead a session of its own was not started by `spawn`.
        return identity.of(pid) if os.getsid(pid) == pid else None
    except OSError:
        return None


def _oom_kills() -> int:
    """Processes the kernel has ended for want of memory since boot; source: /proc/vmstat."""
    with suppress(OSError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0
