"""Starts of engines for tests of what is known of them: all alike, but for what a test says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import msgspec

from deploy.engine import Command, Device, Engine, Figures, Launch, Settings
from deploy.hardware import Cpu, Hardware, Memory
from deploy.lockfile import File, Origin, Variant
from deploy.measured import DIFFERENCE, Entry
from deploy.memory import Term
from deploy.plan import ModelPlan

SETTINGS = Settings(context_tokens=2048, slots=2, threads=2, kv_cache_bytes=1 << 20)


@dataclass(frozen=True)
class Named:
    """All that is asked of an engine here."""

    name: str = "llamacpp"
    device: Device = "cpu"
    version: str = "1.0"


def engine(name: str = "llamacpp", device: Device = "cpu", version: str = "1.0") -> Engine:
    return cast("Engine", Named(name, device, version))


def variant(tree: str = "a" * 64) -> Variant:
    return Variant(
        format="gguf",
        precision="Q4_K_M",
        size=1000,
        tree=tree,
        origin=Origin(kind="path"),
        files=(File(path="weights.gguf", size=1000, sha256="a" * 64),),
    )


def box(cores: int = 2) -> Hardware:
    return Hardware(
        platform="linux-x86_64",
        cpu=Cpu(architecture="x86_64", physical_cores=cores),
        memory=Memory(total_bytes=24 << 30),
    )


def start(at: int = 0, *, predicted: Figures | None = None, **fields: Any) -> Entry:
    """``fields``: of the entry, of its settings, or figures that were measured; all have names of their own."""
    settings = {name: value for name, value in fields.items() if name in Settings.__struct_fields__}
    own = {name: value for name, value in fields.items() if name in Entry.__struct_fields__}
    measured = {name: value for name, value in fields.items() if name not in settings and name not in own}
    if "named" in measured:
        measured["context_tokens"] = measured.pop("named")
    entry = Entry(
        at=at,
        model="chat",
        variant="gguf/Q4_K_M",
        tree=variant().tree,
        hardware=box().fingerprint,
        engine="llamacpp",
        engine_version="1.0",
        device="cpu",
        settings=msgspec.structs.replace(SETTINGS, **settings),
        predicted=predicted or Figures(),
        measured=Figures(**measured),
    )
    return msgspec.structs.replace(entry, **own)


def planned(folder: Path, model: str, command: Command) -> ModelPlan:
    """One model as a plan has it, with all of its files in ``folder``."""
    settings = Settings(context_tokens=4096, slots=2, threads=1)
    return ModelPlan(
        model=model,
        aliases=(f"{model}-alias",),
        verdict="fits",
        limits=(),
        engine="fake",
        engine_version="1",
        device="cpu",
        variant="gguf/F16",
        revision="0123456789ab",
        weights_bytes=1,
        settings=settings,
        kv_tokens=8192,
        memory=(
            term("weights", 700),
            term("buffers", 300),
            term(DIFFERENCE, 5_000),
        ),
        room_bytes=None,
        speed=None,
        because=(),
        rejected=(),
        command=command,
        context_fixed=False,
        launch=Launch(
            model=model,
            variant=variant(),
            weights=str(folder),
            socket=str(folder / f"{model}.sock"),
            environment=str(folder),
            state=str(folder),
            settings=settings,
        ),
        log=str(folder / f"{model}.log"),
        start_timeout_s=30.0,
    )


def term(name: str, size: int) -> Term:
    return Term(name=name, bytes=size, formula="", provenance="predicted", confidence="close", source="a test")
