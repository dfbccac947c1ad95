"""What this box has: the nouns. Unknown is None, never a guess. ``deploy.hardware.detection`` fills them in.

Static facts are the box; ``now`` is what was read at one moment, apart from them. The JSON form of ``Hardware`` is
what ``ownweights hardware --json`` prints, and what the tests' recorded fixtures and ``--hardware FILE`` hold.
"""

from __future__ import annotations

import hashlib
import json
from typing import Literal

import msgspec

GENERATIONS = {
    **dict.fromkeys(("7.0", "7.2"), "volta"),
    "7.5": "turing",
    **dict.fromkeys(("8.0", "8.6", "8.7"), "ampere"),
    "8.9": "ada",
    "9.0": "hopper",
    **dict.fromkeys(("10.0", "10.1", "10.3", "11.0", "12.0", "12.1"), "blackwell"),
}
"""Source: NVIDIA's table of CUDA GPUs by compute capability."""


class Noun(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the recorded form."""


class Cpu(Noun, frozen=True, kw_only=True):
    """Cores are counted three ways because each can be the smallest."""

    model: str | None = None
    architecture: str
    """As the kernel names it: x86_64, aarch64."""
    sockets: int | None = None
    physical_cores: int | None = None
    """Those of which this process may run on a thread at least."""
    logical_cores: int | None = None
    affinity_cores: int | None = None
    """Logical cores this process may run on (sched_getaffinity, cpuset included)."""
    quota_cores: float | None = None
    """cgroup CPU quota / period; None: no quota."""
    isa: tuple[str, ...] = ()
    """The kernel's flags that decide about engines: avx2, avx512f, avx512_bf16, amx_bf16, fma, f16c, bmi2 …"""
    numa_nodes: int | None = None
    """Nodes with a CPU."""


class Memory(Noun, frozen=True, kw_only=True):
    """RAM in bytes. ``limit_bytes`` is the cgroup's; None: no limit."""

    total_bytes: int | None = None
    limit_bytes: int | None = None
    swap_total_bytes: int | None = None
    huge_pages: str | None = None
    """Transparent huge pages: always, madvise or never."""
    bandwidth_bytes_per_s: float | None = None
    """Read by all usable cores at once, where it was measured (``deploy.hardware.bandwidth``)."""


class Disk(Noun, frozen=True, kw_only=True):
    """Where the weights go."""

    filesystem: str | None = None
    rotational: bool | None = None
    """None also where a hypervisor stands between."""
    total_bytes: int | None = None

    @property
    def read_bytes_per_s(self) -> float:
        """The least to count on: of a slow SSD on a busy box, else of any other disk or one that is not known."""
        return 200e6 if self.rotational is False else 50e6


class Gpu(Noun, frozen=True, kw_only=True):
    """One device that an engine can be given: a whole GPU, or a MIG slice of one.

    ``compute_capability`` is the pair in one string: "9.0".
    """

    index: int
    vendor: Literal["nvidia", "amd", "intel"] = "nvidia"
    name: str | None = None
    uuid: str | None = None
    pci: str | None = None
    """Bus id: 0000:17:00.0."""
    compute_capability: str | None = None
    memory_total_bytes: int | None = None
    mig: bool | None = None
    """It is split: what can be used of it are its slices, which are listed as devices of their own."""
    slice_of: int | None = None
    """Index of the GPU that this MIG slice is a part of."""
    nvlink: bool | None = None
    """Any link is up."""
    ecc: bool | None = None
    power_limit_w: float | None = None
    pcie_generation: int | None = None
    """The most that device and slot can do together."""
    pcie_width: int | None = None
    numa_node: int | None = None

    @property
    def generation(self) -> str | None:
        """The family name of its compute capability, in small letters; None for one that is not known."""
        return GENERATIONS.get(self.compute_capability or "")


class Link(Noun, frozen=True, kw_only=True):
    """How two GPUs reach each other, by index. ``path``: nvlink, or the PCIe way as `nvidia-smi topo` has it."""

    first: int
    second: int
    path: Literal["nvlink", "internal", "single", "multiple", "hostbridge", "node", "system"] | None = None
    peer: bool | None = None
    """One can read the other's memory without a copy through the CPU's."""


class GpuProcess(Noun, frozen=True, kw_only=True):
    """Another process on a GPU."""

    pid: int
    name: str | None = None
    memory_bytes: int | None = None


class GpuReading(Noun, frozen=True, kw_only=True):
    """A GPU at one moment, by the index of its device."""

    index: int
    memory_free_bytes: int | None = None
    memory_used_bytes: int | None = None
    """By processes. What the driver keeps for itself is neither free nor used."""
    processes: tuple[GpuProcess, ...] = ()
    temperature_c: int | None = None
    power_w: float | None = None
    throttled: tuple[str, ...] | None = None
    """Why its clocks are held back now: thermal, power, hardware …; empty: they are not."""
    uncorrected_errors: int | None = None
    """Of its memory, since the driver was loaded."""
    pcie_generation: int | None = None
    pcie_width: int | None = None


class Readings(Noun, frozen=True, kw_only=True):
    """What was true when it was read, and need not be any more."""

    memory_available_bytes: int | None = None
    limit_used_bytes: int | None = None
    """What the cgroup holds and cannot drop (working set)."""
    swap_used_bytes: int | None = None
    disk_free_bytes: int | None = None
    gpus: tuple[GpuReading, ...] = ()


class Hardware(Noun, frozen=True, kw_only=True):
    """The whole box. ``gpu_error`` says why GPUs that may be there could not be read."""

    platform: str
    """sys.platform and machine: linux-x86_64."""
    cpu: Cpu
    memory: Memory
    disk: Disk = Disk()
    gpus: tuple[Gpu, ...] = ()
    links: tuple[Link, ...] = ()
    """Of every pair of GPUs that can be told."""
    gpu_error: str | None = None
    driver: str | None = None
    cuda_major: int | None = None
    """Newest CUDA major version that the driver can run."""
    cuda_minor: int | None = None
    now: Readings = Readings()
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
        known = [self.now.memory_available_bytes]
        if self.memory.limit_bytes is not None:
            known.append(self.memory.limit_bytes - (self.now.limit_used_bytes or 0))
        left = [count for count in known if count is not None]
        return min(left) if left else None

    @property
    def memory_total_bytes(self) -> int | None:
        """RAM of the box or of the cgroup, whichever is less."""
        known = [count for count in (self.memory.total_bytes, self.memory.limit_bytes) if count is not None]
        return min(known) if known else None

    @property
    def usable_gpus(self) -> tuple[Gpu, ...]:
        """NVIDIA devices that an engine can be given: slices in place of the GPU that is split into them."""
        return tuple(gpu for gpu in self.gpus if gpu.vendor == "nvidia" and not gpu.mig)

    def reading(self, gpu: Gpu) -> GpuReading:
        """What was read of that device; all unknown where nothing was."""
        return next((one for one in self.now.gpus if one.index == gpu.index), GpuReading(index=gpu.index))

    @property
    def fingerprint(self) -> str:
        """Twelve hex digits over the static facts: the same box gives the same, whatever is running on it."""
        cpu = self.cpu
        facts = [
            self.platform,
            [cpu.model, cpu.physical_cores, cpu.affinity_cores, cpu.quota_cores, sorted(cpu.isa)],
            [self.memory.total_bytes, self.memory.limit_bytes],
            [(gpu.name, gpu.compute_capability, gpu.memory_total_bytes) for gpu in self.gpus],
            [(link.first, link.second, link.path, link.peer) for link in self.links],
            self.cuda_major,
        ]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]
