"""Boxes, variants and an engine for tests of decisions: small, explicit, nothing started."""

from __future__ import annotations

from pathlib import Path

from deploy.engine import Command, Device, Diagnosis, Launch, Refusal, Settings
from deploy.hardware import Cpu, Gpu, Hardware, Memory
from deploy.lockfile import Facts, File, Lock, Model, Origin, Place, Variant
from deploy.soundness import tree_digest

GB = 10**9


def box(
    *, cores: int = 4, free_bytes: int | None = 16 * GB, gpus: tuple[Gpu, ...] = (), gpu_error: str | None = None
) -> Hardware:
    return Hardware(
        platform="linux-x86_64",
        cpu=Cpu(architecture="x86_64", physical_cores=cores, affinity_cores=cores, isa=("avx2", "fma", "f16c", "bmi2")),
        memory=Memory(total_bytes=free_bytes, available_bytes=free_bytes),
        gpus=gpus,
        gpu_error=gpu_error,
        cuda_major=13 if gpus else None,
    )


def gpu(index: int = 0, *, total_bytes: int = 80 * GB, free_bytes: int | None = None) -> Gpu:
    return Gpu(
        index=index,
        name="NVIDIA H100 80GB HBM3",
        compute_capability="9.0",
        memory_total_bytes=total_bytes,
        memory_free_bytes=total_bytes if free_bytes is None else free_bytes,
    )


def variant(
    *,
    size: int = GB,
    kind: str = "gguf",
    precision: str = "Q4_K_M",
    context: int | None = 32768,
    kv: int | None = 12288,
) -> Variant:
    files = (File(path=f"weights.{kind}", size=size, sha256="a" * 64),)
    return Variant(
        format="gguf" if kind == "gguf" else "safetensors",
        precision=precision,
        size=size,
        tree=tree_digest(files),
        origin=Origin(kind="huggingface", repo="org/name", commit="c" * 40),
        facts=Facts(context=context, kv_bytes_per_token=kv),
        files=files,
        places=(Place(kind="hub"),),
    )


def lock(*variants: Variant, name: str = "chat", reason: str | None = None) -> Lock:
    model = Model(name=name, requested="row", reason=reason, variants=variants)
    return Lock(generator="test", inputs="sha256:0", models=(model,))


class StubEngine:
    """Runs one format on one device; refuses what it is told to refuse."""

    version = "1.0"
    requirements = Path("requirements.txt")
    cancels_whole_answers = True

    def __init__(self, name: str, device: Device, kind: str, refusal: Refusal | None = None) -> None:
        self.name = name
        self.device = device
        self._kind = kind
        self._refusal = refusal
        self.files: dict[str, str] = {}

    def refuse(self, variant: Variant, hardware: Hardware) -> Refusal | None:
        if variant.format != self._kind:
            return Refusal(reason=f"reads {self._kind} only", change="another variant")
        return self._refusal

    def overhead_bytes(self, variant: Variant, settings: Settings) -> int:
        return 100_000_000

    def command(self, launch: Launch) -> Command:
        return Command(argv=(self.name, launch.weights, launch.socket), env={"THREADS": str(launch.settings.threads)})

    def start_timeout_s(self, variant: Variant) -> float:
        return 60.0

    def diagnose(self, log: str) -> Diagnosis | None:
        return None
