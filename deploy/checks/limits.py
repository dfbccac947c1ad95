"""Checks of what the kernel lets us have: open files, address space, swap, a control group's memory and CPU time."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from pathlib import Path

from deploy import memory, output
from deploy.checks import Context, Verdict, fail, ok, skip, together, warn
from deploy.checks.box import LOW_MEMORY_SHARE
from deploy.hardware import sysfs
from deploy.plan import Plan

FILES = 1024
"""An open request holds two: the client's connection and the engine's."""
FEWEST_FILES = 256
"""Engines open that many before they serve: libraries, parts of the weights, sockets between their processes."""
SPACES = (("address space", resource.RLIMIT_AS, "v", "as"), ("data", resource.RLIMIT_DATA, "d", "data"))
"""Of each limit: what it is of, and what `ulimit` and `prlimit` call it."""
NOTABLE_SWAP_BYTES = 1 << 28
"""A kernel puts away what nobody touches even when there is room."""
SAMPLE_S = 0.25


def open_files(_: Context) -> Verdict:
    limit, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit != resource.RLIM_INFINITY and limit < FILES:
        # Up to the hard limit it is ours to raise.
        raised = hard == resource.RLIM_INFINITY or hard >= FILES
        wanted = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
        verdict = fail if limit < FEWEST_FILES else warn
        return verdict(
            f"at most {limit} open files, two per open request",
            f"ulimit -n {wanted}" if raised else "sudo prlimit --pid $$ --nofile=65536  # then deploy from this shell",
        )
    return ok("no limit" if limit == resource.RLIM_INFINITY else f"at most {limit}")


def address_space(context: Context) -> Verdict:
    """Of each process. An engine reserves more than it uses: libraries, thread stacks, a map of all GPU memory."""
    return together((_space(context, *space) for space in SPACES), ok("no limit that an engine would meet"))


def _space(context: Context, what: str, kind: int, ulimit: str, prlimit: str) -> Verdict:
    limit, hard = resource.getrlimit(kind)
    needed = max((memory.total(model.memory) for model in context.models), default=0)
    total = context.hardware.memory.total_bytes
    if limit == resource.RLIM_INFINITY or (total is not None and limit >= max(needed, total)):
        return ok(f"{what}: enough")
    seen = f"at most {output.size(limit)} of {what} for a process"
    raised = hard == resource.RLIM_INFINITY
    raising = f"ulimit -{ulimit} unlimited" if raised else f"sudo prlimit --pid $$ --{prlimit}=unlimited:unlimited"
    if needed > limit:
        return fail(f"{seen}, an engine needs {output.size(needed)}", raising)
    return warn(f"{seen}: an engine may reserve more than it uses", raising)


def swap(context: Context) -> Verdict:
    """An engine reads all of its weights for every token: a part of them on the disk makes each token wait for it."""
    hardware = context.hardware
    used, free, total = hardware.now.swap_used_bytes, hardware.memory_free_bytes, hardware.memory_total_bytes
    if hardware.memory.swap_total_bytes == 0:
        return ok("none, and none is needed")
    if used is None or free is None or total is None:
        return skip("its use is unknown")
    seen = f"{output.size(used)} in use"
    if used >= NOTABLE_SWAP_BYTES and free < total * LOW_MEMORY_SHARE:
        return warn(
            f"{seen}, and {output.size(free)} of {output.size(total)} memory free: an engine may be paged out",
            "sudo swapoff -a && sudo swapon -a  # once there is room: end what holds memory, or plan a smaller model",
        )
    return ok(seen)


def memory_limit(context: Context) -> Verdict:
    """The plan fits under the limit as it was; a container or unit can be given less since then."""
    hardware = context.hardware
    limit, total = hardware.memory.limit_bytes, hardware.memory.total_bytes
    if limit is None:
        return ok("no limit of memory")
    seen = f"{output.size(limit)} of {output.size(total)} memory allowed"
    raising = "docker update --memory 32g CONTAINER  # of a unit: sudo systemctl set-property UNIT MemoryMax=32G"
    needed = sum(memory.total(model.memory) for model in context.models if model.device == "cpu")
    if needed > limit:
        return fail(f"{seen}, {output.size(needed)} planned: the kernel would kill an engine", raising)
    if total is not None and limit < total and _limited(context):
        return warn(f"{seen}, and the plan could do with more", raising)
    return ok(seen)


def _limited(context: Context) -> bool:
    """Whether a model could do more on the CPU, or run at all, with more memory."""
    unplanned = context.plan.unplanned if isinstance(context.plan, Plan) else ()
    fixes = [entry.fix for missing in unplanned for entry in missing.rejected if entry.fix]
    return any(fix.memory_bytes and not fix.gpus for fix in fixes) or any(
        model.device == "cpu" and model.verdict == "limits" for model in context.models
    )


def cpu_quota(context: Context, root: Path = Path("/"), sleep: Callable[[float], None] = time.sleep) -> Verdict:
    """Whether the group is stopped now, for the rest of each period, because it has used up its time."""
    quota = context.hardware.cpu.quota_cores
    if quota is None:
        return ok("no quota of CPU time")
    seen = f"{quota:g} core(s) allowed"
    if quota < 1:
        return warn(f"{seen}: not even one thread of an engine runs all the time", _raise_quota(2))
    before = throttled_periods(root)
    sleep(SAMPLE_S)
    after = throttled_periods(root)
    if before is None or after is None:
        return ok(f"{seen}; whether they suffice is unknown")
    if after > before:
        return warn(f"{seen}, used up in {after - before} periods of the last {SAMPLE_S} s", _raise_quota(quota + 1))
    return ok(f"{seen}, not used up")


def _raise_quota(cores: float) -> str:
    return (
        f"docker update --cpus {cores:g} CONTAINER  # of a unit: sudo systemctl set-property UNIT CPUQuota={cores:.0%}"
    )


def throttled_periods(root: Path = Path("/")) -> int | None:
    """In how many periods our own group was stopped so far (cpu.stat of cgroup version 2 or 1); None: not known."""
    for line in sysfs.text(root / "proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / controllers
        # In a namespace of its own a group is shown as the root of its mount.
        for folder in (mount / group.lstrip("/"), mount):
            for words in map(str.split, sysfs.text(folder / "cpu.stat").splitlines()):
                if words[:1] == ["nr_throttled"]:
                    return int(words[1])
    return None
