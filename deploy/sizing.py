"""How much context, how many slots, how many GPUs: what fits into the memory that is free now. Pure."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from deploy import output
from deploy.engine import Engine, Settings
from deploy.hardware import Gpu, Hardware
from deploy.lockfile import Variant
from deploy.memory import table, total

CPU_CONTEXT_TOKENS = 8192
CPU_SLOTS = 8
GPU_CONTEXT_TOKENS = 32768
GPU_SLOTS = 64
MIN_CONTEXT_TOKENS = 2048
"""Below this a chat with a system prompt and one tool no longer fits: not a useful promise."""
CPU_SHARE = 0.9
"""Of free RAM. The rest is for the page cache of everything else and for our own processes."""
GPU_SHARE = 0.92
"""Of a GPU's total memory: vLLM's own default."""


class Sized(msgspec.Struct, frozen=True, kw_only=True):
    """``settings`` is None where nothing fits; ``reason`` says what was decided, ``change`` what would help."""

    settings: Settings | None
    reason: str
    change: str = ""


def size(
    engine: Engine, variant: Variant, hardware: Hardware, *, context: int | None, slots: int | None, taken: int = 0
) -> Sized:
    """The largest offer that fits. ``context`` and ``slots`` are the user's own and are never lowered.

    ``taken`` is what models planned before this one will hold, in bytes.
    """
    known = variant.facts.context
    if context is not None and known is not None and context > known:
        return Sized(
            settings=None, reason=f"context = {context} is more than the model's {known}", change=f"context = {known}"
        )
    if engine.device == "gpu":
        return _on_gpu(engine, variant, hardware, context=context, slots=slots)
    return _on_cpu(engine, variant, hardware, context=context, slots=slots, taken=taken)


def _on_cpu(
    engine: Engine, variant: Variant, hardware: Hardware, *, context: int | None, slots: int | None, taken: int
) -> Sized:
    free = hardware.memory_free_bytes
    limit = None if free is None else int(free * CPU_SHARE) - taken
    need = 0
    for tokens, count in _offers(context, slots, variant.facts.context, CPU_CONTEXT_TOKENS, CPU_SLOTS):
        settings = Settings(context_tokens=tokens, slots=count, threads=hardware.cores)
        cache = variant.facts.kv_bytes_per_token
        settings = msgspec.structs.replace(settings, kv_cache_bytes=None if cache is None else cache * tokens * count)
        need = total(table(engine, variant, settings))
        if limit is None or need <= limit:
            room = "free RAM unknown" if free is None else f"{output.size(free)} RAM free"
            threads = f"{settings.threads} thread{'s' if settings.threads > 1 else ''} = usable cores"
            reason = f"{count} slots of {tokens} tokens need {output.size(need)} ({room}); {threads}"
            return Sized(settings=settings, reason=reason)
    return Sized(
        settings=None,
        reason=f"needs {output.size(need)}, and {output.size(limit)} of RAM can be taken",
        change="a smaller model or context, fewer slots, or more free RAM",
    )


def _on_gpu(engine: Engine, variant: Variant, hardware: Hardware, *, context: int | None, slots: int | None) -> Sized:
    need = 0
    room = 0
    for gpus in _groups(hardware.gpus):
        share = _share(gpus)
        room = int(sum((gpu.memory_total_bytes or 0) * share for gpu in gpus))
        for tokens, count in _offers(context, slots, variant.facts.context, GPU_CONTEXT_TOKENS, slots or GPU_SLOTS):
            settings = Settings(
                context_tokens=tokens, slots=count, threads=1, tensor_parallel=len(gpus), gpu_memory_share=share
            )
            # The engine shares its cache among the slots: one whole context must fit, more is a gain.
            need = total(table(engine, variant, msgspec.structs.replace(settings, slots=1)))
            if need <= room:
                reason = (
                    f"{output.size(need)} with one context of {tokens} tokens fit into {output.size(room)} "
                    f"on {len(gpus)} GPU at a memory share of {share}"
                )
                return Sized(settings=settings, reason=reason)
    return Sized(
        settings=None,
        reason=f"needs {output.size(need)}, and {output.size(room)} of GPU memory can be taken",
        change="a smaller model or precision, less context, or GPUs with more free memory",
    )


def _groups(gpus: tuple[Gpu, ...]) -> Iterator[tuple[Gpu, ...]]:
    """1, 2, 4, 8 … equal GPUs: tensor parallel ranks split heads evenly."""
    count = 1
    while count <= len(gpus):
        yield gpus[:count]
        count *= 2


def _share(gpus: tuple[Gpu, ...]) -> float:
    """What every GPU of the group can give: the engine refuses to start where less is free than its share."""
    shares = [GPU_SHARE]
    for gpu in gpus:
        if gpu.memory_total_bytes and gpu.memory_free_bytes is not None:
            shares.append(gpu.memory_free_bytes / gpu.memory_total_bytes - 0.01)
    return max(0.0, int(min(shares) * 100) / 100)


def _offers(
    context: int | None, slots: int | None, known: int | None, tokens: int, count: int
) -> Iterator[tuple[int, int]]:
    """From generous to meagre: first fewer slots, then less context. A wish of the user's stays as it is."""
    tokens = context or min(tokens, known or tokens)
    count = slots or count
    while True:
        yield tokens, count
        if slots is None and count > 1:
            count //= 2
        elif context is None and tokens // 2 >= MIN_CONTEXT_TOKENS:
            tokens //= 2
        else:
            return
