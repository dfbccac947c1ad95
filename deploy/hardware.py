"""What this box has: the nouns. Unknown is None, never a guess. ``deploy.detection`` fills them in.

The JSON form of ``Hardware`` is what ``ownweights hardware --json`` prints, and what the tests' recorded
fixtures and ``--hardware FILE`` hold.
"""

from __future__ import annotations

import hashlib
import json

import msgspec


class Cpu(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Cores are counted three ways because each can be the smallest."""

    model: str | None = None
    architecture: str
    """As the kernel names it: x86_64, aarch64."""
    physical_cores: int | None = None
    logical_cores: int | None = None
    affinity_cores: int | None = None
    """Logical cores this process may run on (sched_getaffinity, cpuset included)."""
    quota_cores: float | None = None
    """cgroup CPU quota / period; None: no quota."""
    isa: tuple[str, ...] = ()
    """The kernel's flags that decide about engines: avx2, avx512f, avx512_bf16, amx_bf16, fma, f16c, bmi2 …"""
    numa_nodes: int | None = None


class Memory(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """RAM in bytes. ``limit_bytes`` is the cgroup's; None: no limit."""

    total_bytes: int | None = None
    available_bytes: int | None = None
    limit_bytes: int | None = None
    limit_used_bytes: int | None = None
    """What the cgroup holds now and cannot drop (working set)."""


class GpuProcess(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Another process on a GPU."""

    pid: int
    memory_bytes: int | None = None


class Gpu(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One device as NVML sees it. ``compute_capability`` is the pair in one string: "9.0"."""

    index: int
    name: str | None = None
    uuid: str | None = None
    compute_capability: str | None = None
    memory_total_bytes: int | None = None
    memory_free_bytes: int | None = None
    mig: bool | None = None
    nvlink: bool | None = None
    processes: tuple[GpuProcess, ...] = ()


class Hardware(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole box. ``gpu_error`` says why GPUs that may be there could not be read."""

    platform: str
    """sys.platform and machine: linux-x86_64."""
    cpu: Cpu
    memory: Memory
    gpus: tuple[Gpu, ...] = ()
    gpu_error: str | None = None
    driver: str | None = None
    cuda_major: int | None = None
    """Newest CUDA major version that the driver can run."""
    disk_free_bytes: int | None = None
    """Where the weights go."""
    note: str | None = None
    """Of a composed fixture: how it was composed."""

    @property
    def cores(self) -> int:
        """Cores an engine can really use: the least of physical, affinity and whole quota, at least 1."""
        quota = int(self.cpu.quota_cores) if self.cpu.quota_cores is not None else None
        known = [count for count in (self.cpu.physical_cores, self.cpu.affinity_cores, quota) if count is not None]
        return max(1, min(known, default=1))

    @property
    def memory_free_bytes(self) -> int | None:
        """RAM that can be taken now: what is available, and no more than the cgroup leaves."""
        known = [self.memory.available_bytes]
        if self.memory.limit_bytes is not None:
            known.append(self.memory.limit_bytes - (self.memory.limit_used_bytes or 0))
        left = [count for count in known if count is not None]
        return min(left) if left else None

    @property
    def memory_total_bytes(self) -> int | None:
        """RAM of the box or of the cgroup, whichever is less."""
        known = [count for count in (self.memory.total_bytes, self.memory.limit_bytes) if count is not None]
        return min(known) if known else None

    @property
    def fingerprint(self) -> str:
        """Twelve hex digits over the static facts: the same box gives the same, whatever is running on it."""
        cpu = self.cpu
        facts = [
            self.platform,
            [cpu.model, cpu.physical_cores, cpu.affinity_cores, cpu.quota_cores, sorted(cpu.isa)],
            [self.memory.total_bytes, self.memory.limit_bytes],
            [(gpu.name, gpu.compute_capability, gpu.memory_total_bytes) for gpu in self.gpus],
            self.cuda_major,
        ]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]
