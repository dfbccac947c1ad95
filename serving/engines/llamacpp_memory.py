"""What llama.cpp's server holds in RAM, term by term: weights, caches, buffers of a step, itself. Pure.

Sources: the sizes that xllamacpp 2026.10.11549 says it allocates, for 25 made-up models (dense, of experts, MLA, with
sliding windows, hybrid) with 1 to 8 slots of 300 to 32768 tokens, and the peak of its process for some of them.
"""

from __future__ import annotations

from collections.abc import Iterator

from deploy.dimensions import ELEMENT_BYTES, Cache, Recurrent, Shape
from deploy.engine import Settings
from deploy.lockfile import Variant
from deploy.memory import Confidence, Term, weights_bytes
from serving.engines.llamacpp_server import CHECKPOINTS

CELLS = 256
"""A slot has a multiple of them."""
STEP_TOKENS = 512
"""Of a prompt at once (n_ubatch)."""
FLOAT_BYTES = 4
MASK_BYTES = 2
RUNTIME_BYTES = 38_000_000
"""Python, the libraries, threads; 36 to 39 MB."""
WORD_BYTES = 360
"""Of the tokenizer's tables, per token of the vocabulary; 300 to 360."""
CANDIDATE_BYTES = 16
"""Per slot and token of the vocabulary: its logit, and the sampler's entry."""
PROMPT_BYTES = 256
"""Per token of every slot: the request as it came, as text, as tokens; 230 to 330 once all slots were full."""
STATES = 3.5
"""Copies of the recurrent states of all slots in a step; 3.0 to 3.4."""
LARGE_VOCABULARY = 262_144
"""Where it is not known: few models have a larger one."""
STEP_SHARE = 1 / 20
"""Of the weights, where widths are not known; 0.02 to 0.1 from 8B down to 0.5B."""


def cells(context_tokens: int) -> int:
    """Tokens that a slot has room for."""
    return -(-context_tokens // CELLS) * CELLS


def kv_bytes(cache: Cache, context_tokens: int, requests: int) -> int | None:
    """Of so many slots; None for a sparse indexer, whose keys nothing here has measured.

    MLA keeps its one vector once, for keys and values. A layer with a window keeps that and one step.
    """
    if cache.indexer_width:
        return None
    held = cache.layers * cells(context_tokens) + cache.window_layers * _near(cache, context_tokens)
    return requests * cache.width * ELEMENT_BYTES * held


def terms(variant: Variant, settings: Settings, *, prompt_cache_bytes: int) -> tuple[Term, ...]:
    """All of it. ``prompt_cache_bytes``: the most that the server keeps of earlier prompts, beside its slots."""
    lines = (
        _term("weights", weights_bytes(variant), "all tensors, read into RAM", "close"),
        *_caches(variant.facts.cache, settings),
        _step(variant, settings),
        *_vocabulary(variant.facts.shape, settings),
        _prompts(settings),
        _term("runtime", RUNTIME_BYTES, "Python and libraries", "close"),
        _term("prompt cache", prompt_cache_bytes, "its limit", "exact"),
    )
    return tuple(line for line in lines if line.bytes)


def _caches(cache: Cache | None, settings: Settings) -> Iterator[Term]:
    if cache is None:
        return
    held = kv_bytes(cache, settings.context_tokens, settings.slots)
    room = cells(settings.context_tokens)
    if held is not None:
        formula = f"{_slots(settings)} * {room} tokens * {held / settings.slots / room:g} B"
        yield _term("KV cache", held, formula, "exact")
    state = _state_bytes(cache.recurrent) if cache.recurrent else 0
    yield _term("recurrent state", settings.slots * state, f"{_slots(settings)} * {state} B", "exact")
    window = cache.window_layers * cache.width * ELEMENT_BYTES * min(cache.window or 0, room)
    formula = f"{_slots(settings)} * {CHECKPOINTS} * {state + window} B"
    yield _term("checkpoints", settings.slots * CHECKPOINTS * (state + window), formula, "close")


def _step(variant: Variant, settings: Settings) -> Term:
    """The compute buffer: rows of the widest layer, and the mask of one slot."""
    shape, cache = variant.facts.shape, variant.facts.cache
    masked = cells(settings.context_tokens) + (_near(cache, settings.context_tokens) if cache else 0)
    masks = STEP_TOKENS * MASK_BYTES * masked
    width = _row_width(shape, cache) if shape else None
    if width is None:
        share = int(weights_bytes(variant) * STEP_SHARE)
        return _term("compute buffer", share + masks, f"weights * {STEP_SHARE:g} + mask", "rough")
    states = 0
    if cache and cache.recurrent:
        states = int(STATES * settings.slots * FLOAT_BYTES * _matrix(cache.recurrent))
    formula = f"{STEP_TOKENS} tokens * ({width} * {FLOAT_BYTES} B + {masked} * {MASK_BYTES} B)"
    rows = STEP_TOKENS * FLOAT_BYTES * width
    return _term("compute buffer", rows + masks + states, formula + (f" + {states} B of states" if states else ""))


def _row_width(shape: Shape, cache: Cache | None) -> int | None:
    """Floats per token that are there at once in the widest layer. Of experts it is those that answer together, which
    are about as wide as a dense layer of the same model."""
    if not shape.hidden or not shape.inner:
        return None
    heads = shape.heads or 0
    layers = [3 * shape.inner + 5 * shape.hidden]
    if cache and cache.kind == "mla":
        layers.append(3 * heads * cache.width + 2 * shape.hidden)
    elif cache:
        layers.append(2 * heads * (cache.key_width or 0) + 5 * shape.hidden)
    if cache and cache.recurrent:
        values = cache.recurrent.value_heads * cache.recurrent.value_width
        layers.append(2 * _convolved(cache.recurrent) + values + 2 * shape.hidden)
    return max(layers)


def _vocabulary(shape: Shape | None, settings: Settings) -> Iterator[Term]:
    known = shape.vocabulary if shape else None
    words = known or LARGE_VOCABULARY
    confidence: Confidence = "close" if known else "rough"
    yield _term("tokenizer", WORD_BYTES * words, f"{words} tokens * {WORD_BYTES} B", confidence)
    formula = f"{_slots(settings)} * {words} tokens * {CANDIDATE_BYTES} B"
    yield _term("logits", settings.slots * words * CANDIDATE_BYTES, formula, confidence)


def _prompts(settings: Settings) -> Term:
    tokens = settings.slots * cells(settings.context_tokens)
    return _term("requests", tokens * PROMPT_BYTES, f"{tokens} tokens * {PROMPT_BYTES} B")


def _near(cache: Cache, context_tokens: int) -> int:
    return min(cells(context_tokens), cells(cache.window + STEP_TOKENS)) if cache.window else 0


def _state_bytes(recurrent: Recurrent) -> int:
    """Of one slot; both parts in 32 bits, whatever the model's type."""
    kept = (recurrent.kernel - 1) * _convolved(recurrent)
    return recurrent.layers * FLOAT_BYTES * (kept + _matrix(recurrent))


def _matrix(recurrent: Recurrent) -> int:
    return recurrent.value_heads * recurrent.key_width * recurrent.value_width


def _convolved(recurrent: Recurrent) -> int:
    keys = 2 * recurrent.key_heads * recurrent.key_width
    return keys + recurrent.value_heads * recurrent.value_width


def _slots(settings: Settings) -> str:
    return f"{settings.slots} slot{'s' if settings.slots > 1 else ''}"


def _term(name: str, size: int, formula: str, confidence: Confidence = "close") -> Term:
    source = "allocations and peaks of xllamacpp 2026.10.11549"
    return Term(name=name, bytes=size, formula=formula, provenance="predicted", confidence=confidence, source=source)
