"""How a model can be spread over equal GPUs in vLLM: tensor, pipeline, data and expert parallel. Pure.

vLLM chooses nothing itself. Rules, from its 0.32 and 0.33 unless another source is named: attention heads divide
evenly (config/model.py), KV heads divide or are copied evenly (models/qwen3.py), heads of linear attention and
feed-forward widths divide (distributed/utils.py); the vocabulary is padded, and is no rule. Widths of FP8 weights
whose scales are per block stay whole blocks: dense layers refuse others (quantization/utils/fp8_utils.py); experts can
be refined to smaller blocks by Triton kernels only (fused_moe/oracle/fp8.py), which the recipes advise against.
Pipeline over tensor where GPUs do not reach each other, or their number is odd: its documentation (parallelism and
scaling). Every architecture of the catalogue has pipeline support.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import msgspec

from deploy.dimensions import Cache, Shape
from deploy.engine import Split
from deploy.hardware import Gpu, Link
from deploy.lockfile import Variant
from serving.engines import vllm_quantization, vllm_recipe

PADDED = frozenset(["DeepseekV32ForCausalLM"])
"""Sparse attention whose kernel pads a rank's heads to ``PADDED_HEADS``. Source: vllm-project/recipes, DeepSeek-V3.2;
that of GLM-5, with the same attention, splits by tensor all the same."""
PADDED_HEADS = 64
USUAL_BLOCK = 128
"""Of every fp8 repository of the catalogue whose configuration names one."""
WHOLE_EXPERTS = frozenset(["DeepseekV3ForCausalLM", "DeepseekV4ForCausalLM"])
"""Source: vllm-project/recipes: the flags of DeepSeek-R1, V3 and V3.1, the default strategy of V4."""


def splits(variant: Variant, gpus: tuple[Gpu, ...], links: tuple[Link, ...]) -> tuple[Split, ...]:
    """The fewest GPUs first: 1, 2, 4, 8 … and all of them; of as many the better one first."""
    if not gpus:
        return ()
    apart = _are_apart(gpus, links)
    found = chain.from_iterable(_over(variant, count, apart=apart) for count in _counts(gpus))
    return tuple(_noted(split, variant, gpus[0]) for split in found)


def _counts(gpus: tuple[Gpu, ...]) -> tuple[int, ...]:
    """A process sees one MIG slice, whatever it is given (NVIDIA's MIG user guide)."""
    if any(gpu.slice_of is not None for gpu in gpus):
        return (1,)
    powers = (1 << power for power in range(len(gpus).bit_length()))
    return tuple(sorted({*powers, len(gpus)}))


def _are_apart(gpus: tuple[Gpu, ...], links: tuple[Link, ...]) -> bool:
    """Known to reach each other through the CPU's memory alone. Not known is not apart."""
    indices = {gpu.index for gpu in gpus}
    among = [link for link in links if {link.first, link.second} <= indices]
    return bool(among) and all(link.path != "nvlink" and link.peer is False for link in among)


def _over(variant: Variant, count: int, *, apart: bool) -> Iterator[Split]:
    """All ways over so many GPUs."""
    if count == 1:
        yield Split(because="one GPU, nothing is split")
        return
    shape = variant.facts.shape or Shape()
    tensor = _widest(variant, count)
    if _is_padded(variant, count):
        because = (
            f"{count} copies of the attention, whole experts: fewer than {PADDED_HEADS} heads are padded to as many"
        )
        yield Split(data=count, experts=True, because=because)
    if tensor == count and not apart:
        yield _by_tensor(variant, count)
    elif tensor == count:
        yield from _by_pipeline(shape, 1, count, "without NVLink or peer access layers are handed on, not cut")
        yield _by_tensor(variant, count)
    elif _widest(variant, count, whole_experts=True) == count and shape.experts:
        yield from _by_experts(variant, tensor, count)
    else:
        yield from _by_pipeline(
            shape, tensor, count // tensor, _obstacle(variant, count) or f"{count} is not 2, 4, 8 …"
        )


def _is_padded(variant: Variant, ranks: int) -> bool:
    heads = variant.facts.shape.heads if variant.facts.shape else None
    return variant.facts.architecture in PADDED and heads is not None and heads // ranks < PADDED_HEADS


def _by_tensor(variant: Variant, count: int) -> Split:
    """Experts stay whole where a recipe says so."""
    experts = vllm_recipe.EXPERTS in variant.facts.vllm_args or variant.facts.architecture in WHOLE_EXPERTS
    heads = variant.facts.shape.heads if variant.facts.shape else None
    shares = f", {heads // count} of {heads} heads each" if heads else ""
    kept = ", whole experts as its recipe has them" if experts else ""
    doubt = "" if heads else f"whether its heads can be shared by {count} is not known before vLLM starts"
    because = f"every layer cut over {count} GPUs{shares}{kept}"
    return Split(tensor=count, experts=experts, because=because, doubt=doubt)


def _by_pipeline(shape: Shape, tensor: int, stages: int, because: str) -> Iterator[Split]:
    if shape.layers is not None and shape.layers < stages:
        return
    cut = f", each cut over {tensor} GPUs" if tensor > 1 else ""
    yield Split(tensor=tensor, pipeline=stages, because=f"layers in {stages} stages{cut}: {because}")


def _by_experts(variant: Variant, tensor: int, count: int) -> Iterator[Split]:
    """Attention by tensor, or copies of it; the experts lie whole on one GPU each."""
    because = _obstacle(variant, count)
    if tensor * 2 <= count:
        copies = (
            f"{count // tensor} copies of the attention over {tensor} GPUs each" if tensor > 1 else f"{count} copies"
        )
        yield Split(tensor=tensor, data=count // tensor, experts=True, because=f"{copies}, whole experts: {because}")
    yield Split(tensor=count, experts=True, because=f"attention cut over {count} GPUs, whole experts: {because}")


def _widest(variant: Variant, count: int, *, whole_experts: bool = False) -> int:
    """The most tensor-parallel ranks, 1, 2, 4 …, that divide so many GPUs."""
    powers = [1 << power for power in range(count.bit_length()) if count % (1 << power) == 0]
    return max(ranks for ranks in powers if _obstacle(variant, ranks, whole_experts=whole_experts) is None)


def _obstacle(variant: Variant, ranks: int, *, whole_experts: bool = False) -> str | None:
    """Why a layer cannot be cut over so many GPUs; None where it can, or where nothing is known against it."""
    shape = variant.facts.shape or Shape()
    widths = (shape.inner, None if whole_experts else shape.expert_inner)
    return _uneven_heads(shape, variant.facts.cache, ranks) or next(
        (why for width in widths if width and (why := _uneven_width(width, _block(variant), ranks))), None
    )


def _block(variant: Variant) -> int | None:
    """Rows that share a scale. A repository in fp8 whose configuration nobody has read yet may have them."""
    block = variant.facts.shape.quantized_block if variant.facts.shape else None
    unread = not variant.files and variant.precision == "fp8"
    return USUAL_BLOCK if block is None and unread else block


def _uneven_heads(shape: Shape, cache: Cache | None, ranks: int) -> str | None:
    if shape.heads and shape.heads % ranks:
        return f"{shape.heads} attention heads cannot be shared by {ranks}"
    # The compressed vector of MLA is whole on every rank.
    kv_heads = None if cache is None or cache.kind == "mla" else cache.kv_heads
    if kv_heads and kv_heads % ranks and ranks % kv_heads:
        return f"{kv_heads} KV heads cannot be shared by {ranks}"
    recurrent = cache.recurrent if cache else None
    if recurrent and (recurrent.key_heads % ranks or recurrent.value_heads % ranks):
        return f"{recurrent.key_heads} heads of linear attention cannot be shared by {ranks}"
    return None


def _uneven_width(width: int, block: int | None, ranks: int) -> str | None:
    if width % ranks:
        return f"a width of {width} cannot be shared by {ranks}"
    if ranks > 1 and block and width // ranks % block:
        return f"{width} / {ranks} = {width // ranks} is not a multiple of its FP8 blocks of {block}"
    return None


def _noted(split: Split, variant: Variant, gpu: Gpu) -> Split:
    """With what this GPU makes of the precision."""
    remark, doubt = vllm_quantization.remark(variant, gpu), vllm_quantization.doubt(variant, gpu)
    because = split.because if remark is None else f"{split.because}; {remark}"
    doubts = "; ".join(one for one in (split.doubt, doubt) if one)
    return msgspec.structs.replace(split, because=because, doubt=doubts)
