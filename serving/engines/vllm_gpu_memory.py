"""What vLLM holds on one GPU, line by line, the KV cache among it. Pure; no GPU run is behind it.

Formulas are read in vLLM 0.32: v1/worker/gpu_worker.py (what a start measures before it sizes its cache),
v1/worker/gpu_model_runner.py (the step it measures with), config/vllm.py (which graphs it captures). With tensor
parallelism layers, experts, embeddings and output layer are all divided; with data parallelism all but the experts is
whole on every rank, and experts are shared by all ranks (fused_moe/config.py).
"""

from __future__ import annotations

from deploy import output
from deploy.dimensions import ELEMENT_BYTES, Cache, Shape
from deploy.engine import Settings, Split
from deploy.hardware import Gpu, Hardware
from deploy.lockfile import Variant
from deploy.memory import Confidence, Term
from serving.engines import vllm_quantization

GIB = 1 << 30
LIBRARY_BYTES = 600_000_000
"""Kernels and workspaces that a first step loads. CUDA's context itself is there before the engine takes stock, and is
no part of its share (init_device). With this line a public start of Qwen3-8B on an H100 is met within 1.8 %."""
PEER_BYTES = 150_000_000
"""NCCL's channels and the buffers of the custom all-reduce, for each other rank, once the first step has used them."""
UNDIVIDED_SHARE = 0.01
"""Of a rank's weights, what every rank holds whole: norms, routers, copied KV heads, and the down projections of MLA,
which for DeepSeek-R1 on 8 ranks are 0.9 of 86 GB."""
GRAPH_LAYER_BYTES = 256 << 10
"""Of one captured graph and layer. vLLM's own estimates: 0.73 GiB for 86 graphs of a Qwen3.5 (pull request 39559),
0.67 GiB for 54 of MiniMax-M2.7, which has 62 layers (issue 39610)."""
LARGEST_GRAPH, LARGEST_GRAPH_BLACKWELL = 512, 1024
UNKNOWN_LAYERS = 64
SAMPLING_BYTES = 16
"""Of a request and word of the vocabulary: logits in 16 bits, gathered, in 32, as probabilities, and random numbers
(v1/sample/sampler.py and ops/topk_topp_sampler.py)."""
EXPERTS_PER_TOKEN = 8
"""DeepSeek, Qwen3, GLM, Kimi-K2 and MiniMax-M2 alike."""
UP_PROJECTION_TOKENS, UP_PROJECTION_WIDTH = 65536, 256
"""MLA: most cached tokens that are expanded at once (model_executor/layers/attention/mla_attention.py), and elements
of a head's key and value then (DeepSeek's)."""
SMALL, LARGE = 70 * GIB, 160 * GIB
"""Devices by whose memory vLLM sets its default number of batched tokens (engine/arg_utils.py)."""


def terms(variant: Variant, settings: Settings, hardware: Hardware) -> tuple[Term, ...]:
    """Of the fullest GPU of those it is given. A KV cache of unknown size has no line."""
    shape, cache = variant.facts.shape or Shape(), variant.facts.cache
    gpu = _gpu(settings, hardware)
    weights = _weights(variant, shape, settings.split)
    held = sum(term.bytes for term in weights)
    return (
        *weights,
        *_kv_cache(settings),
        _term("CUDA libraries", LIBRARY_BYTES, "a constant", "rough", "a public start of Qwen3-8B; not measured by us"),
        *_communication(settings.split),
        _graphs(shape, settings, gpu),
        _activations(shape, cache, settings, gpu, held),
    )


def batched_tokens(gpu: Gpu | None) -> int:
    """vLLM's own default for a server on such a device."""
    total = (gpu.memory_total_bytes if gpu else None) or 0
    if total >= LARGE:
        return 16384
    is_a100 = gpu is not None and "a100" in (gpu.name or "").lower()
    return 8192 if total >= SMALL and not is_a100 else 2048


def graphs(slots: int, tokens: int, capability: str | None) -> int:
    """How many are captured: of steps with prompts and, up to as many requests as there can be, of steps without."""
    ceiling = LARGEST_GRAPH_BLACKWELL if (capability or "").startswith("10.") else LARGEST_GRAPH
    most = min(2 * slots, ceiling, tokens)
    sizes = [1, 2, 4, *range(8, 256, 8), *range(256, most + 1, 16)]
    return len([size for size in sizes if size <= most]) + len([size for size in sizes if size <= min(slots, most)])


def _weights(variant: Variant, shape: Shape, split: Split) -> tuple[Term, ...]:
    loaded = vllm_quantization.loaded_bytes(variant)
    spread = _expert_share(shape) if split.data > 1 else None
    if spread is None:
        return (_share_of("weights", loaded, split.tensor, split, shape),)
    experts = int(loaded * spread)
    return (
        _share_of("weights", loaded - experts, split.tensor, split, shape),
        _share_of("experts", experts, split.tensor * split.data, split, shape),
    )


def _share_of(name: str, size: int, ranks: int, split: Split, shape: Shape) -> Term:
    share, formula = size / ranks, f"{output.size(size)} / {ranks}"
    if split.pipeline > 1:
        stages, edge = split.pipeline, _edge_bytes(shape) / split.tensor if name == "weights" else 0
        if shape.layers:
            largest = -(-shape.layers // stages)
            share = max(0.0, share - 2 * edge) * largest / shape.layers + edge
            formula = f"{formula} * {largest} of {shape.layers} layers, and an embedding"
        else:
            share, formula = share / stages, f"{formula} / {stages} stages"
    if split.tensor > 1:
        share, formula = share * (1 + UNDIVIDED_SHARE), f"{formula}, and {UNDIVIDED_SHARE:.0%} that is whole on each"
    rough = split.pipeline > 1 and not shape.layers
    return _term(
        name, int(share), formula, "rough" if rough else "close", "sizes of the files; vLLM 0.32, distributed/"
    )


def _edge_bytes(shape: Shape) -> int:
    """Of the embedding, which the first stage of a pipeline holds; the last one holds an output layer as large."""
    return (shape.vocabulary or 0) * (shape.hidden or 0) * ELEMENT_BYTES


def _expert_share(shape: Shape) -> float | None:
    """Of all weights, by element: beside the experts a layer has attention (4 * hidden²) and a shared expert."""
    if not shape.experts or not shape.hidden or not shape.expert_inner:
        return None
    one = 3 * shape.hidden * shape.expert_inner
    embeddings = 2 * (shape.vocabulary or 0) * shape.hidden / (shape.layers or UNKNOWN_LAYERS)
    return shape.experts * one / (shape.experts * one + one + 4 * shape.hidden**2 + embeddings)


def _kv_cache(settings: Settings) -> tuple[Term, ...]:
    if settings.kv_cache_bytes is None:
        return ()
    formula = "what is planned for it; vLLM takes what its start leaves of the memory share"
    return (_term("KV cache", settings.kv_cache_bytes, formula, "close", "vLLM 0.32, v1/worker/gpu_worker.py"),)


def _communication(split: Split) -> tuple[Term, ...]:
    peers = split.gpus - 1
    formula = f"{peers} other ranks * {output.size(PEER_BYTES)}"
    rough = _term("communication", peers * PEER_BYTES, formula, "rough", "public start logs; not measured by us")
    return (rough,) if peers else ()


def _graphs(shape: Shape, settings: Settings, gpu: Gpu | None) -> Term:
    split = settings.split
    tokens = settings.batched_tokens or batched_tokens(gpu)
    count = graphs(_slots(settings), tokens, gpu.compute_capability if gpu else None)
    layers = -(-(shape.layers or UNKNOWN_LAYERS) // split.pipeline)
    formula = f"{count} graphs * {layers} layers * {output.size(GRAPH_LAYER_BYTES)}"
    return _term("CUDA graphs", count * layers * GRAPH_LAYER_BYTES, formula, "rough", "vLLM 0.32, config/vllm.py")


def _activations(shape: Shape, cache: Cache | None, settings: Settings, gpu: Gpu | None, held: int) -> Term:
    """The larger of one step through a layer and of sampling: the first is over when the other begins."""
    source = "vLLM 0.32, v1/worker/gpu_model_runner.py, profile_run"
    if not shape.hidden:
        return _term("activations", held // 10, "a tenth of the weights: widths not known", "rough", source)
    tokens = settings.batched_tokens or batched_tokens(gpu)
    step = tokens * _token_bytes(shape, settings.split) + _expanded(shape, cache, settings)
    words = shape.vocabulary or 0
    sampling = _slots(settings) * words * SAMPLING_BYTES
    formula = (
        f"the larger of {tokens} tokens through a layer ({output.size(step)}) "
        f"and {_slots(settings)} * {words} logits ({output.size(sampling)})"
    )
    return _term("activations", max(step, sampling), formula, "rough", source)


def _token_bytes(shape: Shape, split: Split) -> int:
    """Of one token: hidden state, residual, norm and attention, and the widest block between."""
    hidden, inner = shape.hidden or 0, shape.inner or 0
    if not shape.expert_inner:
        return ELEMENT_BYTES * (6 * hidden + 3 * inner // split.tensor)
    width = shape.expert_inner // (1 if split.experts else split.tensor)
    # Each rank is sent the tokens of all that share the experts with it.
    routed = EXPERTS_PER_TOKEN * (max(hidden, 2 * width) + width) * split.data
    return ELEMENT_BYTES * (6 * hidden + routed)


def _expanded(shape: Shape, cache: Cache | None, settings: Settings) -> int:
    """MLA without a sparse indexer: cached tokens of long prompts, with keys and values for every head."""
    if cache is None or cache.kind != "mla" or cache.indexer_width is not None:
        return 0
    tokens = min(UP_PROJECTION_TOKENS, max(8 * settings.context_tokens, 256 * _slots(settings)))
    return tokens * -(-(shape.heads or 0) // settings.split.tensor) * UP_PROJECTION_WIDTH * ELEMENT_BYTES


def _slots(settings: Settings) -> int:
    """Of one data-parallel rank."""
    return -(-settings.slots // settings.split.data)


def _gpu(settings: Settings, hardware: Hardware) -> Gpu | None:
    """One of those it is given; they are alike."""
    usable = hardware.usable_gpus
    given = (gpu for gpu in usable if gpu.index in settings.devices)
    return next(given, usable[0] if usable else None)


def _term(name: str, size: int, formula: str, confidence: Confidence, source: str) -> Term:
    return Term(name=name, bytes=size, formula=formula, provenance="predicted", confidence=confidence, source=source)
