"""What the checks look at, composed: a box, a plan and a lock of the parts that one test is about."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from deploy.checks import Context
from deploy.config import Config, EngineWish, ModelWish
from deploy.engine import Command, Device, Launch, Settings, Split
from deploy.hardware import Cpu, Gpu, GpuReading, Hardware, Link, Memory, Readings
from deploy.lockfile import File, Licence, Lock, Model, Origin, Place, Variant
from deploy.memory import Term
from deploy.plan import ModelPlan, Plan, Unplanned
from deploy.soundness import tree_digest

GB = 10**9
WEIGHTS = b"the weights"
CONFIG = Config(model=(ModelWish(name="chat"),))
CPU_ONLY = Config(model=(ModelWish(name="chat"),), engines=EngineWish(gpu="none"))


@dataclass(frozen=True)
class Pinned:
    """The part of an engine that the checks ask for."""

    name: str
    version: str
    device: Device
    requirements: Path
    files: dict[str, str]


def engine(
    folder: Path, name: str = "llamacpp", version: str = "1.0", device: Device = "cpu", needs: str = ""
) -> Pinned:
    requirements = folder / f"{name}-{device}.txt"
    requirements.write_text(needs)
    return Pinned(name, version, device, requirements, {})


def box(
    *,
    gpus: tuple[Gpu, ...] = (),
    links: tuple[Link, ...] = (),
    readings: tuple[GpuReading, ...] = (),
    memory: Memory = Memory(total_bytes=16 * GB, swap_total_bytes=0),  # noqa: B008 - frozen
    quota_cores: float | None = None,
    gpu_error: str | None = None,
    cuda: tuple[int | None, int | None] = (13, None),
    **now: int | None,
) -> Hardware:
    """16 GB of memory, 12 of them free; ``now`` replaces readings."""
    return Hardware(
        platform="linux-x86_64",
        cpu=Cpu(architecture="x86_64", physical_cores=2, quota_cores=quota_cores),
        memory=memory,
        gpus=gpus,
        links=links,
        gpu_error=gpu_error,
        driver="580.95.05" if gpus else None,
        cuda_major=cuda[0] if gpus else None,
        cuda_minor=cuda[1],
        now=Readings(**{"memory_available_bytes": 12 * GB, "disk_free_bytes": 100 * GB} | now, gpus=readings),
    )


def h100(index: int = 0, **facts: object) -> Gpu:
    known = {"name": "NVIDIA H100 80GB HBM3", "compute_capability": "9.0", "memory_total_bytes": 80 * GB}
    return Gpu(index=index, **known | facts)  # type: ignore[arg-type]


def variant(
    *, size: int = len(WEIGHTS), repo: str = "org/name", commit: str = "c" * 40, gated: bool = False
) -> Variant:
    """One file of eleven bytes, whose content is ``WEIGHTS``."""
    files = (File(path="weights.gguf", size=size, sha256=hashlib.sha256(WEIGHTS).hexdigest()),)
    return Variant(
        format="gguf",
        precision="Q4_K_M",
        size=size,
        tree=tree_digest(files),
        origin=Origin(kind="huggingface", repo=repo, commit=commit),
        licence=Licence(id="MIT", gated=gated),
        files=files,
        places=(Place(kind="hub"),),
    )


def lock(*variants: Variant) -> Lock:
    chat = Model(name="chat", requested="row", variants=variants or (variant(),))
    return Lock(generator="test", inputs="sha256:0", models=(chat,))


def model(
    *,
    engine: str = "llamacpp",
    version: str = "1.0",
    device: Device = "cpu",
    needs_bytes: int = GB,
    limits: tuple[str, ...] = (),
    gpus: int = 1,
) -> ModelPlan:
    """A plan of the model ``chat`` in its one locked variant."""
    devices = tuple(range(gpus)) if device == "gpu" else ()
    settings = Settings(context_tokens=4096, slots=1, threads=1, split=Split(tensor=gpus), devices=devices)
    table = Term(name="weights", bytes=needs_bytes, formula="", provenance="predicted", confidence="exact", source="")
    launch = Launch(model="chat", variant=variant(), weights="", socket="", environment="", state="", settings=settings)
    return ModelPlan(
        model="chat",
        aliases=(),
        verdict="limits" if limits else "fits",
        limits=limits,
        engine=engine,
        engine_version=version,
        device=device,
        variant="gguf/Q4_K_M",
        revision="c" * 12,
        weights_bytes=len(WEIGHTS),
        settings=settings,
        context_fixed=False,
        kv_tokens=None,
        memory=(table,),
        room_bytes=None,
        speed=None,
        because=(),
        rejected=(),
        command=Command(argv=(), env={}),
        launch=launch,
        log="",
        start_timeout_s=60.0,
    )


def plan(*models: ModelPlan, of: Lock | None = None, unplanned: tuple[Unplanned, ...] = ()) -> Plan:
    return Plan(hardware="0", lock=(of or lock()).digest, models=models, unplanned=unplanned)


def context(**parts: object) -> Context:
    """A box without GPUs and a project that is locked and not planned, with the parts replaced."""
    usual = {"config": CONFIG, "lock": lock(), "plan": None, "engines": (), "hardware": box()}
    return Context(**usual | parts)  # type: ignore[arg-type]
