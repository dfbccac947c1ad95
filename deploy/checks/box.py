"""Checks of the box: Python, packages, memory, neighbours, port, file limit, folders, key, Hub."""

from __future__ import annotations

import resource
import stat
import sys
import tempfile
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path

import deploy
from deploy import neighbours, output, paths, ports
from deploy.checks import Context, Verdict, fail, ok, skip, warn
from deploy.config import Config, Server

OLDEST, NEWEST = (3, 11), (3, 14)
PACKAGES = ("deploy", "serving", "benchmarks")
LOW_MEMORY_SHARE = 0.2
FILES = 1024
"""An open request holds two: the client's connection and the engine's."""


def python(_: Context) -> Verdict:
    return judge_python((sys.version_info.major, sys.version_info.minor))


def judge_python(version: tuple[int, int]) -> Verdict:
    """The versions that are tested."""
    seen = "{}.{}".format(*version)
    if version < OLDEST:
        return fail(f"{seen}, and 3.11 or newer is needed", "rm -rf .venv; make deploy PYTHON=python3.11")
    if version > NEWEST:
        return warn(f"{seen} is newer than what was tested (3.14)", "rm -rf .venv; make deploy PYTHON=python3.14")
    return ok(seen)


def packages(_: Context) -> Verdict:
    """Our package names are plain words: another distribution that ships one would overwrite our files unasked."""
    shipped = packages_distributions()
    home = Path(deploy.__file__).parents[1]
    for name in PACKAGES:
        others = sorted(set(shipped.get(name, ())) - {"ownweights"})
        if others:
            return fail(
                f"package `{name}` is also installed by: {', '.join(others)}",
                f"{sys.executable} -m pip uninstall {' '.join(others)}  # then `make deploy` again",
            )
        spec = find_spec(name)
        if spec is None or spec.origin is None or Path(spec.origin).parents[1] != home:
            found = "nowhere" if spec is None else spec.origin or "a folder without code"
            return fail(f"package `{name}` is not ours: found at {found}", "unset PYTHONPATH")
    return ok(f"{', '.join(PACKAGES)} are ours alone")


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
    hint = "set [server] port = 8001 in models.toml"
    return fail(
        f"{where} is held by {holder or 'a process of another user'}",
        f"kill {holder.pid}  # or {hint}" if holder else hint,
    )


def open_files(_: Context) -> Verdict:
    limit, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit != resource.RLIM_INFINITY and limit < FILES:
        return warn(f"at most {limit} open files, two per open request", "ulimit -n 65536")
    return ok("no limit" if limit == resource.RLIM_INFINITY else f"at most {limit}")


def folders(_: Context) -> Verdict:
    places = {
        "data": paths.data_dir(),
        "state": paths.state_dir(),
        "cache": paths.cache_dir(),
        "weights": paths.hub_cache(),
    }
    for name, folder in places.items():
        try:
            # A nameless file: permission bits alone do not tell of read-only and of foreign network file systems.
            with tempfile.TemporaryFile(dir=paths.nearest(folder)):
                pass
        except OSError as error:
            moved = "HF_HUB_CACHE" if name == "weights" else "OWNWEIGHTS_HOME"
            return fail(
                f"the {name} folder `{folder}` cannot be written: {error.strerror}",
                f"export {moved}=/a/writable/folder",
            )
    return ok(f"{', '.join(places)} can be written")


def key(_: Context) -> Verdict:
    path = paths.key_file()
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        return skip("there is none before the first deploy")
    if mode & 0o077:
        return fail(f"`{path}` has mode {mode:04o}: others may read it", f"chmod 600 {path}")
    return ok(f"`{path}` has mode {mode:04o}")


def hub(_: Context) -> Verdict:
    from deploy import hub as client

    if client.reachable():
        return ok(f"{client.address()} answers")
    return warn(
        f"{client.address()} does not answer: only weights that another place has can be fetched",
        "export HF_ENDPOINT=https://a.mirror  # or https_proxy=http://a.proxy:port",
    )
