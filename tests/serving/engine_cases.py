"""Boxes, weights and launches that the adapters' tests share."""

from __future__ import annotations

from typing import Literal

from deploy.engine import Launch, Settings
from deploy.hardware import Cpu, Gpu, Hardware, Memory
from deploy.lockfile import Facts, Origin, Variant

ISA = ("avx2", "bmi2", "f16c", "fma")
GB = 10**9


def box(
    *gpus: Gpu,
    platform: str = "linux-x86_64",
    isa: tuple[str, ...] = ISA,
    cuda_major: int | None = 13,
    gpu_error: str | None = None,
) -> Hardware:
    return Hardware(
        platform=platform,
        cpu=Cpu(architecture=platform.partition("-")[2], isa=isa),
        memory=Memory(),
        gpus=gpus,
        gpu_error=gpu_error,
        driver="595.10" if gpus else None,
        cuda_major=cuda_major if gpus else None,
    )


def gpu(capability: str | None = "9.0", index: int = 0) -> Gpu:
    return Gpu(index=index, name="H100", compute_capability=capability, memory_total_bytes=80 * GB)


def variant(
    format: Literal["safetensors", "gguf"],
    *,
    size: int = 0,
    architecture: str | None = None,
    flags: tuple[str, ...] = (),
) -> Variant:
    return Variant(
        format=format,
        precision="BF16",
        size=size,
        tree="",
        origin=Origin(kind="path"),
        facts=Facts(architecture=architecture, vllm_args=flags),
        files=(),
    )


def launch(weights: Variant, settings: Settings, aliases: tuple[str, ...] = ("small", "fast")) -> Launch:
    return Launch(
        model="chat",
        aliases=aliases,
        variant=weights,
        weights="/weights",
        socket="/run/e.sock",
        environment="/environment",
        state="/state",
        settings=settings,
    )


def option(argv: tuple[str, ...], name: str) -> str:
    """The one value after a flag."""
    assert argv.count(name) == 1
    return argv[argv.index(name) + 1]
