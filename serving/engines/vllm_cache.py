"""vLLM's KV cache, to the token: bytes for so many whole contexts, and tokens in so many bytes, on one device.

The cache is one pool of blocks of equal size. Layers that keep the same kind of thing are put into groups of equally
many layers, every group of a request draws blocks of its own, and a block is as wide as one page of each layer of a
group. Sources: vLLM 0.32, v1/core/kv_cache_utils.py, v1/kv_cache_interface.py, platforms/interface.py and cpu.py.
The figures of the CPU build are checked against running engines (tests/conformance/test_memory.py); those of GPUs
are read in the same code, not run.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from deploy.dimensions import ELEMENT_BYTES, Cache, Recurrent
from deploy.engine import Device, Settings
from deploy.lockfile import Variant

BLOCK_TOKENS: dict[Device, int] = {"cpu": 128, "gpu": 16}
MLA_BLOCK_TOKENS: dict[Device, int] = {"cpu": 16, "gpu": 64}
"""The reference kernel of CPUs takes no other. On GPUs FlashMLA's; other backends have 16 to 128."""
AMX_BLOCK_TOKENS = 128
"""Of MLA on a CPU with AMX, which is not known here: bytes are counted so that they are enough there too."""
KERNEL_TOKENS: dict[Device, int] = {"cpu": 32, "gpu": 16}
"""An attention kernel takes multiples of it."""
BATCHED_TOKENS: dict[Device, int] = {"cpu": 2048, "gpu": 16384}
"""Of one step, where nothing is said. On GPUs by their memory from 2048: with the most a sliding window keeps most."""
STEPS_AT_ONCE: dict[Device, int] = {"cpu": 1, "gpu": 2}
"""A GPU is given the next step before the last one is settled."""
STATES_KEPT = 2
"""Of each linear layer and request, because prefix caching keeps the one at the last whole block too."""
CPU_STATE_BYTES = 4
"""Of an element of the recurrent state: CPUs with avx512_bf16 are always set to float32."""
SPARSE_FP8_BYTES = 656
"""fp8_ds_mla, of a token and layer: 512 in 8 bits, their four scales, and the rotary part in 16 bits."""
INDEXER_BLOCK, INDEXER_SCALE_BYTES = 128, 4
"""A sparse indexer's keys are always in 8 bits, with a scale per 128."""
SIXTEEN_BITS = frozenset(["auto", "bfloat16", "float16"])


@dataclass(frozen=True)
class Pool:
    """How a device's cache is cut."""

    block_bytes: int
    request_blocks: int
    """That one request of the full context takes."""

    def bytes(self, requests: int) -> int:
        """Of so many at once, and the one block that vLLM keeps empty (BlockPool's null block)."""
        return (requests * self.request_blocks + 1) * self.block_bytes


@dataclass(frozen=True)
class _Kind:
    """Layers that keep the same, and the blocks that one request takes of each of their groups."""

    layers: int
    blocks: int


def kv_bytes(variant: Variant, settings: Settings, requests: int, *, device: Device) -> int | None:
    """The least with which so many requests of ``settings.context_tokens`` fit at once; None where it is not known.

    Of MLA on a CPU a little more than that without AMX, see ``AMX_BLOCK_TOKENS``.
    """
    pool = _pool(variant, settings, device)
    if pool is None:
        return None
    wide = _pool(variant, settings, device, mla_tokens=AMX_BLOCK_TOKENS) if device == "cpu" else None
    return max(one.bytes(requests) for one in (pool, wide) if one is not None)


def kv_tokens(variant: Variant, settings: Settings, *, device: Device) -> int | None:
    """The N of "KV cache size: N tokens" in the engine's log; None where it is not known.

    It is how many requests of the full context fit, times that context: it moves with the context, it is short of the
    pool where a context does not fill its last block, and it counts the empty block in.
    """
    pool = _pool(variant, settings, device)
    if pool is None or settings.kv_cache_bytes is None:
        return None
    blocks = settings.kv_cache_bytes // pool.block_bytes
    # In the engine's own order, for the sake of its rounding.
    return int(blocks / pool.request_blocks * settings.context_tokens)


def batched_tokens(variant: Variant, settings: Settings, *, device: Device) -> int:
    """Most tokens of one step over all requests, as the engine settles it.

    On a CPU without AMX the prompts of MLA models are never cut in pieces, whatever it is asked for.
    """
    context, usual = settings.context_tokens, BATCHED_TOKENS[device]
    cache, flags = variant.facts.cache, variant.facts.vllm_args
    if cache is not None and cache.kind == "mla" and device == "cpu":
        return max(context, usual)
    if settings.batched_tokens is not None:
        return settings.batched_tokens
    longest = max(context, usual) if "--no-enable-chunked-prefill" in flags else usual
    return min(settings.slots * context, longest)


def _pool(variant: Variant, settings: Settings, device: Device, mla_tokens: int | None = None) -> Pool | None:
    flags = variant.facts.vllm_args
    cache, element = variant.facts.cache, _element_bytes(flags)
    if cache is None or element is None or _is_open(cache, flags):
        return None
    token = _token_bytes(cache, element, settings.split.tensor)
    if cache.kind == "mla":
        tokens = mla_tokens or _mla_block_tokens(flags, device)
    else:
        tokens = _block_tokens(cache, token, flags, settings, device)
    kinds = _kinds(variant, cache, tokens, settings, device)
    size = _group_layers([kind.layers for kind in kinds])
    # Each stage of a pipeline holds its share of every group.
    layers = _ceil(size, settings.split.pipeline)
    indexed = min(layers, _ceil(_indexers(cache), settings.split.pipeline))
    return Pool(
        block_bytes=tokens * (layers * token + indexed * _indexer_bytes(cache)),
        request_blocks=sum(_ceil(kind.layers, size) * kind.blocks for kind in kinds),
    )


def _is_open(cache: Cache, flags: tuple[str, ...]) -> bool:
    """A width is missing, or something takes blocks whose size is not known: linear layers, a draft model."""
    without_state = cache.kind == "hybrid-gqa" and cache.recurrent is None
    without_layers = not cache.width or not (cache.layers or cache.window_layers)
    return without_state or without_layers or _value(flags, "--speculative-config") is not None


def _element_bytes(flags: tuple[str, ...]) -> int | None:
    """Of the cache, not of the weights. Types that pack scales beside their values are not known here."""
    given = _value(flags, "--kv-cache-dtype") or "auto"
    if given in SIXTEEN_BITS:
        return ELEMENT_BYTES
    return 1 if given.startswith("fp8") else None


def _token_bytes(cache: Cache, element: int, ranks: int) -> int:
    """Of one token in one layer on one of ``ranks`` devices: KV heads are shared out, at least one to each.

    The compressed vector of MLA is whole on every device; with a sparse indexer, 8 bits mean a format of its own.
    """
    if cache.kind == "mla":
        return SPARSE_FP8_BYTES if _indexers(cache) and element == 1 else cache.width * element
    heads = cache.kv_heads or 1
    return max(1, heads // ranks) * (cache.width // heads) * element


def _indexers(cache: Cache) -> int:
    """Layers with a sparse indexer."""
    if cache.indexer_width is None:
        return 0
    return cache.layers if cache.indexer_layers is None else cache.indexer_layers


def _indexer_bytes(cache: Cache) -> int:
    """Of one token's key in one indexer, in a page beside the layer's."""
    width = cache.indexer_width or 0
    return width + _ceil(width, INDEXER_BLOCK) * INDEXER_SCALE_BYTES


def _mla_block_tokens(flags: tuple[str, ...], device: Device) -> int:
    """On a CPU whatever was asked for."""
    usual = MLA_BLOCK_TOKENS[device]
    return usual if device == "cpu" else _given_block(flags) or usual


def _block_tokens(cache: Cache, token: int, flags: tuple[str, ...], settings: Settings, device: Device) -> int:
    """Tokens of one block; with linear layers as many as make an attention page hold a whole state."""
    tokens = _given_block(flags) or BLOCK_TOKENS[device]
    if cache.recurrent is None:
        return tokens
    kernel = KERNEL_TOKENS[device]
    step = max(kernel, tokens)
    state = _state_bytes(cache.recurrent, settings.split.tensor, device)
    aligned = _ceil(_ceil(state, step * token) * step, kernel) * kernel
    return max(tokens, aligned)


def _state_bytes(recurrent: Recurrent, ranks: int, device: Device) -> int:
    """Of one layer and request: the convolution's last inputs (queries, keys, values) and a matrix per value head."""
    inputs = 2 * recurrent.key_heads * recurrent.key_width + recurrent.value_heads * recurrent.value_width
    matrix = recurrent.value_heads * recurrent.value_width * recurrent.key_width
    element = CPU_STATE_BYTES if device == "cpu" else recurrent.element_bytes
    return (inputs * (recurrent.kernel - 1) * ELEMENT_BYTES + matrix * element) // ranks


def _kinds(variant: Variant, cache: Cache, tokens: int, settings: Settings, device: Device) -> list[_Kind]:
    context = settings.context_tokens
    kinds = [_Kind(cache.layers, _ceil(context, tokens))]
    if cache.recurrent is not None:
        kinds.append(_Kind(cache.recurrent.layers, STATES_KEPT))
    if cache.window is not None:
        in_flight = STEPS_AT_ONCE[device] * batched_tokens(variant, settings, device=device)
        looked_at = min(cache.window - 1 + in_flight, context)
        # One more, because a window need not start where a block does.
        kinds.append(_Kind(cache.window_layers, _ceil(looked_at, tokens) + 1))
    return [kind for kind in kinds if kind.layers]


def _group_layers(counts: list[int]) -> int:
    """As many layers as the rarest kind has, or as the commonest where that is less than half as many more."""
    fewest, most = min(counts), max(counts)
    return most if most < 1.5 * fewest else fewest


def _given_block(flags: tuple[str, ...]) -> int | None:
    given = _value(flags, "--block-size") or ""
    return int(given) or None if given.isdecimal() else None


def _value(flags: tuple[str, ...], name: str) -> str | None:
    """Of a flag with one value, given as one word or as two; the last one counts."""
    found = None
    for word, following in pairwise((*flags, "")):
        flag, equals, value = word.partition("=")
        if flag == name:
            found = value if equals else following
    return found


def _ceil(amount: int, unit: int) -> int:
    return -(-amount // unit)
