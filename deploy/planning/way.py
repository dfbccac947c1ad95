"""One way to run a model that works on this box, and how ways are compared."""

from __future__ import annotations

import re

import msgspec

from deploy import output
from deploy.config import ModelWish
from deploy.engine import Engine, Settings
from deploy.lockfile import Variant
from deploy.measured import LEAST_TOKENS
from deploy.memory import Term, total, weights_bytes
from deploy.planning.budget import Taken

MIN_CONTEXT_TOKENS = LEAST_TOKENS
"""Below this a chat with a system prompt and one tool no longer fits: not a useful promise."""
CONTEXT_TOKENS = {"cpu": 8192, "gpu": 32768}
"""That are wanted where models.toml does not say. A long prompt on a CPU takes minutes."""
SLOTS = {"cpu": 8, "gpu": 256}
"""At most, where models.toml does not say: vLLM's own default on most GPUs; on a CPU more only share its few cores."""
USEFUL_SLOTS = 32
"""More requests at once are welcome, and no reason to take another GPU: it serves a second model, or a copy."""
UNKNOWN_CACHE = "the size of its KV cache is not known"
UNKNOWN_CACHE_SHARE = 0.1
"""Of what can be taken of a device, kept free for a KV cache whose size nobody can compute before the start."""
BITS = re.compile(r"\d+")
"""In a precision's name: bf16, fp8, nvfp4, Q4_K_M."""
METHODS = dict.fromkeys(("awq", "gptq", "auto_awq", "auto_gptq"), "int4")
"""Precisions that a repository names by its method alone; they are used for four bits."""
FEW_SLOTS = 8
"""Fewer are a limit that the plan names."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What of the wish decides about sizes. None: the plan decides. ``modest``: no more than has to be."""

    context: int | None = None
    slots: int | None = None
    modest: bool = False

    @classmethod
    def of(cls, wish: ModelWish, *, modest: bool = False) -> Wanted:
        return cls(context=wish.context, slots=wish.slots, modest=modest)

    def tokens(self, variant: Variant, device: str) -> int:
        """The context that is wanted on such a device."""
        known = variant.facts.context
        return self.context or min(CONTEXT_TOKENS[device], known or CONTEXT_TOKENS[device])


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """``taken``: what it keeps from others on each device. ``wanted_tokens``: the context it is measured against."""

    engine: Engine
    variant: Variant
    settings: Settings
    memory: tuple[Term, ...]
    taken: Taken
    room_bytes: int | None
    kv_tokens: int | None
    wanted_tokens: int
    limits: tuple[str, ...]
    because: tuple[str, ...]

    @property
    def need_bytes(self) -> int:
        """On one device, the fullest."""
        return total(self.memory)

    @property
    def least_bytes(self) -> int:
        """The same with one whole context: on GPUs the plan gives all of the room to the KV cache."""
        held = self.settings.kv_cache_bytes or 0
        one = self.engine.kv_bytes(self.variant, self.settings, 1)
        return self.need_bytes - held + min(held, held if one is None else one)

    @property
    def rank(self) -> tuple[int, ...]:
        """Larger is better: the wanted context and the few slots that a plan aims for, then the variant that keeps
        most of the weights, then more context, a useful number of requests at once, fewer GPUs, more requests, larger
        steps.
        """
        settings = self.settings
        return (
            min(settings.context_tokens, self.wanted_tokens),
            min(settings.slots, FEW_SLOTS),
            *kept(self.variant),
            settings.context_tokens,
            min(settings.slots, USEFUL_SLOTS),
            -settings.split.gpus,
            settings.slots,
            settings.batched_tokens or 0,
        )


def kept(variant: Variant) -> tuple[int, int, int]:
    """How much of a model's weights a variant keeps, to compare variants of one model by: more bits per weight round
    less away (the perplexity tables of llama.cpp's quantize tool, and the vendors' FP8 and FP4 cards, fall in that
    order); of as many bits the maker's own before others', then the larger.
    """
    bits = BITS.search(METHODS.get(variant.precision.lower(), variant.precision))
    return int(bits[0]) if bits else 0, variant.quantized_by is None, weights_bytes(variant)


def halved(start: int, least: int) -> tuple[int, ...]:
    """``start``, half of it, and so on while it is at least ``least``; ``start`` itself in any case."""
    found = [start]
    while found[-1] // 2 >= max(1, least):
        found.append(found[-1] // 2)
    return tuple(found)


def beside(taken: Taken) -> str:
    """What other models of the plan hold, at the end of a refusal."""
    most = max(taken.values(), default=0)
    return f" beside the {output.size(most)} of other models" if most else ""


def shortfalls(settings: Settings, wanted: Wanted, wanted_tokens: int) -> tuple[str, ...]:
    """What the promise lacks, in words."""
    limits = []
    if settings.context_tokens < wanted_tokens:
        limits.append(
            f"a context of {settings.context_tokens} tokens, less than the {wanted_tokens} that a plan aims for"
        )
    if not wanted.modest and wanted.slots is None and settings.slots < FEW_SLOTS:
        limits.append(f"{settings.slots} at once, fewer than the {FEW_SLOTS} that a plan aims for")
    return tuple(limits)
