"""Boxes, weights and launches that the adapters' tests share."""

from __future__ import annotations

from typing import Literal

from deploy.dimensions import Cache, Override, Shape
from deploy.engine import Launch, Settings
from deploy.hardware import Cpu, Disk, Gpu, Hardware, Link, Memory
from deploy.lockfile import Facts, Origin, Variant

ISA = ("avx2", "bmi2", "f16c", "fma")
GB = 10**9
GIB = 1 << 30


def box(
    *gpus: Gpu,
    platform: str = "linux-x86_64",
    isa: tuple[str, ...] = ISA,
    cuda_major: int | None = 13,
    gpu_error: str | None = None,
    rotational: bool | None = None,
) -> Hardware:
    return Hardware(
        platform=platform,
        cpu=Cpu(architecture=platform.partition("-")[2], isa=isa),
        memory=Memory(),
        disk=Disk(rotational=rotational),
        gpus=gpus,
        gpu_error=gpu_error,
        driver="595.10" if gpus else None,
        cuda_major=cuda_major if gpus else None,
    )


def gpu(
    capability: str | None = "9.0", index: int = 0, *, memory_bytes: int = 85_520_809_984, nvlink: bool | None = None
) -> Gpu:
    """An H100 where nothing else is said."""
    return Gpu(index=index, name="H100", compute_capability=capability, memory_total_bytes=memory_bytes, nvlink=nvlink)


def linked(count: int, capability: str = "9.0") -> tuple[Gpu, ...]:
    """So many of them in one NVLink box."""
    return tuple(gpu(capability, index, nvlink=True) for index in range(count))


def links(count: int, *, peer: bool | None = True, nvlink: bool = False) -> tuple[Link, ...]:
    """Of every pair of so many."""
    pairs = ((first, second) for second in range(count) for first in range(second))
    return tuple(Link(first=a, second=b, path="nvlink" if nvlink else "node", peer=peer) for a, b in pairs)


def variant(
    format: Literal["safetensors", "gguf"],
    *,
    size: int = 0,
    precision: str = "BF16",
    architecture: str | None = None,
    flags: tuple[str, ...] = (),
    overrides: tuple[Override, ...] = (),
    cache: Cache | None = None,
    shape: Shape | None = None,
    repo: str | None = None,
) -> Variant:
    return Variant(
        format=format,
        precision=precision,
        size=size,
        tree="",
        origin=Origin(kind="huggingface" if repo else "path", repo=repo),
        facts=Facts(architecture=architecture, vllm_args=flags, overrides=overrides, cache=cache, shape=shape),
        files=(),
    )


def launch(
    weights: Variant,
    settings: Settings,
    aliases: tuple[str, ...] = ("small", "fast"),
    *,
    generation: str | None = None,
    start_timeout_s: float = 1234.0,
) -> Launch:
    return Launch(
        model="chat",
        aliases=aliases,
        variant=weights,
        weights="/weights",
        socket="/run/e.sock",
        environment="/environment",
        state="/state",
        settings=settings,
        generation=generation,
        start_timeout_s=start_timeout_s,
    )


def option(argv: tuple[str, ...], name: str) -> str:
    """The one value after a flag."""
    assert argv.count(name) == 1
    return argv[argv.index(name) + 1]


def gqa(layers: int, kv_heads: int, width: int = 128) -> Cache:
    return Cache(kind="gqa", layers=layers, kv_heads=kv_heads, key_width=width, value_width=width)


def mla(layers: int, *, indexer_width: int | None = None) -> Cache:
    """With DeepSeek's widths."""
    return Cache(kind="mla", layers=layers, rank=512, rotary_width=64, indexer_width=indexer_width)


# Widths as the models' own config.json has them, sizes as their repositories list them.
QWEN3_8B = variant(
    "safetensors",
    size=16_381_470_720,
    precision="bf16",
    architecture="Qwen3ForCausalLM",
    cache=gqa(36, 8),
    shape=Shape(layers=36, hidden=4096, heads=32, vocabulary=151936, inner=12288),
)
QWEN3_32B_AWQ = variant(
    "safetensors",
    size=19_330_000_000,
    precision="int4",
    architecture="Qwen3ForCausalLM",
    cache=gqa(64, 8),
    shape=Shape(layers=64, hidden=5120, heads=64, vocabulary=151936, inner=25600),
)
QWEN3_235B_FP8 = variant(
    "safetensors",
    size=237_000_000_000,
    precision="fp8",
    architecture="Qwen3MoeForCausalLM",
    cache=gqa(94, 4),
    shape=Shape(
        layers=94,
        hidden=4096,
        heads=64,
        vocabulary=151936,
        inner=12288,
        experts=128,
        expert_inner=1536,
        quantized_block=128,
    ),
)
MINIMAX_M2 = variant(
    "safetensors",
    size=230_000_000_000,
    precision="fp8",
    architecture="MiniMaxM2ForCausalLM",
    cache=gqa(62, 8),
    shape=Shape(
        layers=62, hidden=3072, heads=48, vocabulary=200064, experts=256, expert_inner=1536, quantized_block=128
    ),
)
DEEPSEEK = Shape(
    layers=61,
    hidden=7168,
    heads=128,
    vocabulary=129280,
    inner=18432,
    experts=256,
    expert_inner=2048,
    quantized_block=128,
)
DEEPSEEK_R1 = variant(
    "safetensors",
    size=688_600_000_000,
    precision="fp8",
    architecture="DeepseekV3ForCausalLM",
    cache=mla(61),
    shape=DEEPSEEK,
)
DEEPSEEK_V32 = variant(
    "safetensors",
    size=688_600_000_000,
    precision="fp8",
    architecture="DeepseekV32ForCausalLM",
    cache=mla(61, indexer_width=128),
    shape=DEEPSEEK,
)
GLM_5_FP8 = variant(
    "safetensors",
    size=756_000_000_000,
    precision="fp8",
    architecture="GlmMoeDsaForCausalLM",
    cache=mla(78, indexer_width=128),
    shape=Shape(
        layers=78,
        hidden=6144,
        heads=64,
        vocabulary=154880,
        inner=12288,
        experts=256,
        expert_inner=2048,
        quantized_block=128,
    ),
)
