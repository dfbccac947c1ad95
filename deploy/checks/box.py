"""Checks of what other processes take of this box: memory, cores, the port."""

from __future__ import annotations

from itertools import chain

from deploy import neighbours, output, ports
from deploy.checks import Context, Verdict, fail, ok, skip, warn
from deploy.config import Config, Server

LOW_MEMORY_SHARE = 0.2


def memory(context: Context) -> Verdict:
    free, total = context.hardware.memory_free_bytes, context.hardware.memory_total_bytes
    if free is None or total is None:
        return skip("free memory is unknown")
    seen = f"{output.size(free)} of {output.size(total)} free"
    if free >= total * LOW_MEMORY_SHARE:
        return ok(seen)
    for process in sorted(neighbours.snapshot(), key=lambda process: -process.memory_bytes):
        if not neighbours.is_ours(process.pid, context.service_pid):
            return warn(
                f"{seen}; pid {process.pid} ({process.name}) holds {output.size(process.memory_bytes)}",
                f"kill {process.pid}  # if it can be spared, or plan a smaller model",
            )
    return ok(f"{seen}, the rest is our own")


def cores(context: Context) -> Verdict:
    return judge_cores(context, neighbours.busy())


def judge_cores(context: Context, busy: tuple[tuple[neighbours.Neighbour, float], ...]) -> Verdict:
    """``busy`` is who takes how many cores, the busiest first."""
    for process, taken in busy:
        if not neighbours.is_ours(process.pid, context.service_pid):
            return warn(
                f"pid {process.pid} ({process.name}) takes {taken:.1f} of {context.hardware.cores} usable cores",
                f"renice 19 {process.pid}  # or end it: an engine slows down far more than by its share",
            )
    return ok(f"{context.hardware.cores} usable, no other process takes one")


def port(context: Context) -> Verdict:
    server = context.config.server if isinstance(context.config, Config) else Server()
    where = f"{server.host}:{server.port}"
    if ports.free(server.host, server.port):
        return ok(f"{where} is free")
    holder = ports.listener(server.host, server.port)
    if holder is not None and holder.pid == context.service_pid:
        return ok(f"{where} is held by our own service, {holder}")
    other = _free_port(server)
    change = f"set [server] port = {other} in models.toml" if other else "set another [server] port in models.toml"
    return fail(
        f"{where} is held by {holder or 'a process of another user'}",
        f"{change}  # or, if it can be spared: kill {holder.pid}" if holder else change,
    )


def _free_port(server: Server) -> int | None:
    """The next one that needs no root."""
    above = range(max(server.port + 1, 1024), 65536)
    return next((port for port in chain(above, range(1024, server.port)) if ports.free(server.host, port)), None)
