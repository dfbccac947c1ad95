"""Boxes, variants and an engine for tests of decisions: small, explicit, nothing started."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from deploy import config, planning
from deploy.dimensions import Cache
from deploy.engine import Command, Device, Diagnosis, Engine, Figures, Launch, Refusal, Settings, Split
from deploy.hardware import Cpu, Gpu, GpuReading, Hardware, Link, Memory, Readings
from deploy.lockfile import Facts, File, Lock, Model, Origin, Place, Variant
from deploy.measured import NOTHING, Known
from deploy.memory import Term, weights_bytes
from deploy.plan import Layout, Plan
from deploy.soundness import tree_digest
from tests.deploy.measured.starts import start

GB = 10**9
ENGINE_BYTES = 100_000_000
KV_HEADS, HEAD = 2, 64
LAYER_BYTES = KV_HEADS * (HEAD + HEAD) * 2
"""Of a token in one layer's cache."""
LAYOUT = Layout(
    weights=lambda variant: Path("/cache") / variant.key,
    environment=lambda engine: Path("/environments") / engine.name,
    sockets=Path("/run"),
    state=Path("/state"),
    logs=Path("/logs"),
)


class Card(NamedTuple):
    """A GPU and what is read of it now."""

    gpu: Gpu
    reading: GpuReading


def box(
    *, cores: int = 4, free_bytes: int | None = 16 * GB, gpus: tuple[Card, ...] = (), gpu_error: str | None = None
) -> Hardware:
    return Hardware(
        platform="linux-x86_64",
        cpu=Cpu(architecture="x86_64", physical_cores=cores, affinity_cores=cores, isa=("avx2", "fma", "f16c", "bmi2")),
        memory=Memory(total_bytes=free_bytes),
        gpus=tuple(card.gpu for card in gpus),
        gpu_error=gpu_error,
        cuda_major=13 if gpus else None,
        now=Readings(memory_available_bytes=free_bytes, gpus=tuple(card.reading for card in gpus)),
    )


def gpu(index: int = 0, *, total_bytes: int = 80 * GB, free_bytes: int | None = None) -> Card:
    """All of its memory is free where nothing else is said."""
    return Card(
        Gpu(index=index, name="NVIDIA H100 80GB HBM3", compute_capability="9.0", memory_total_bytes=total_bytes),
        GpuReading(index=index, memory_free_bytes=total_bytes if free_bytes is None else free_bytes),
    )


def variant(
    *,
    size: int = GB,
    kind: str = "gguf",
    precision: str = "Q4_K_M",
    context: int | None = 32768,
    kv: int | None = 12288,
) -> Variant:
    """``kv``: bytes of its cache per token, a multiple of ``LAYER_BYTES``; None: not known."""
    layers = None if kv is None else kv // LAYER_BYTES
    files = (File(path=f"weights.{kind}", size=size, sha256="a" * 64),)
    return Variant(
        format="gguf" if kind == "gguf" else "safetensors",
        precision=precision,
        size=size,
        tree=tree_digest(files),
        origin=Origin(kind="huggingface", repo="org/name", commit="c" * 40),
        facts=Facts(context=context, cache=None if layers is None else cache(layers)),
        files=files,
        places=(Place(kind="hub"),),
    )


def cache(layers: int) -> Cache:
    return Cache(kind="gqa", layers=layers, kv_heads=KV_HEADS, key_width=HEAD, value_width=HEAD)


def lock(*variants: Variant, name: str = "chat", reason: str | None = None) -> Lock:
    model = Model(name=name, requested="row", reason=reason, variants=variants)
    return Lock(generator="test", inputs="sha256:0", models=(model,))


class StubEngine:
    """Runs one format on one device, on GPUs on 1, 2, 4 or 8 of them; refuses what it is told to refuse."""

    version = "1.0"
    requirements = Path("requirements.txt")
    cancels_whole_answers = True

    def __init__(self, name: str, device: Device, kind: str, refusal: Refusal | None = None) -> None:
        self.name = name
        self.device = device
        self.formats = (kind,)
        self._refusal = refusal
        self.files: dict[str, str] = {}

    def refuse(self, variant: Variant, hardware: Hardware) -> Refusal | None:
        if variant.format not in self.formats:
            return Refusal(reason=f"reads {self.formats[0]} only", change="another variant")
        return self._refusal

    def splits(self, variant: Variant, gpus: tuple[Gpu, ...], links: tuple[Link, ...]) -> tuple[Split, ...]:
        counts = (1,) if self.device == "cpu" else (count for count in (1, 2, 4, 8) if count <= len(gpus))
        return tuple(Split(tensor=count, because=f"a stub on {count}") for count in counts)

    def kv_bytes(self, variant: Variant, settings: Settings, requests: int) -> int | None:
        per_token = variant.facts.kv_bytes_per_token
        return None if per_token is None else requests * settings.context_tokens * per_token

    def kv_tokens(self, variant: Variant, settings: Settings) -> int | None:
        per_token = variant.facts.kv_bytes_per_token
        return settings.kv_cache_bytes // per_token if per_token and settings.kv_cache_bytes is not None else None

    def memory(self, variant: Variant, settings: Settings, hardware: Hardware) -> tuple[Term, ...]:
        """On one device: its part of the weights, the cache as it is set, and the same for itself always."""
        parts = {
            "weights": -(-weights_bytes(variant) // settings.split.gpus),
            "kv cache": settings.kv_cache_bytes,
            "engine": ENGINE_BYTES,
        }
        return tuple(
            Term(name=name, bytes=size, formula="stub", provenance="predicted", confidence="exact", source="stub")
            for name, size in parts.items()
            if size is not None
        )

    def command(self, launch: Launch) -> Command:
        return Command(argv=(self.name, launch.weights, launch.socket), env={"THREADS": str(launch.settings.threads)})

    def start_timeout_s(self, variant: Variant, hardware: Hardware) -> float:
        return 60.0

    def figures(self, log: str) -> Figures:
        return Figures()

    def diagnose(self, log: str) -> Diagnosis | None:
        return None


VLLM_GPU = StubEngine("vllm", "gpu", "safetensors")
LLAMACPP = StubEngine("llamacpp", "cpu", "gguf")
VLLM_CPU = StubEngine("vllm", "cpu", "safetensors")
STUBS = (VLLM_GPU, LLAMACPP, VLLM_CPU)
"""In the order of preference that the real ones have."""


def plan(
    text: str, locked: Lock, hardware: Hardware, engines: tuple[Engine, ...] = STUBS, known: Known = NOTHING
) -> Plan:
    """``text``: of models.toml, below the name of its first model, which is chat."""
    wanted = config.parse(f'[[model]]\nname = "chat"\n{text}')
    return planning.make(wanted, locked, hardware, engines, LAYOUT, known=known)


def seen(chosen: Variant, engine: Engine, hardware: Hardware, **fields: Any) -> Known:
    """One start of these bytes on this engine and box; ``fields`` as of ``starts.start``."""
    subject = {
        "tree": chosen.tree,
        "engine": engine.name,
        "device": engine.device,
        "engine_version": engine.version,
        "hardware": hardware.fingerprint,
    }
    return Known(entries=(start(**subject | fields),))
