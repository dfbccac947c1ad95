"""GPUs, context, slots and batch on a box with GPUs: requests share one paged KV cache. Pure.

One request of the whole context must always fit. Beyond that, requests are counted with ``MEAN_TOKENS`` each, and the
engine pauses one where the count was too low.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import msgspec

from deploy import output
from deploy.dimensions import Override
from deploy.engine import Engine, Fix, Refusal, Settings, Split
from deploy.hardware import Gpu, GpuReading, Hardware
from deploy.lockfile import Variant
from deploy.measured import Known
from deploy.memory import Term, total
from deploy.planning import budget, experience
from deploy.planning.budget import Taken
from deploy.planning.way import (
    CONTEXT_TOKENS,
    FEW_SLOTS,
    MIN_CONTEXT_TOKENS,
    SLOTS,
    UNKNOWN_CACHE,
    UNKNOWN_CACHE_SHARE,
    Wanted,
    Way,
    beside,
    halved,
    shortfalls,
)

MEAN_TOKENS = 4096
"""Per request, prompt and answer: above the means that public traces report (Azure's of 2023: about 1400 for chat,
2100 for code)."""
BATCHED_TOKENS = (8192, 2048)
"""Of one step. The larger is vLLM's default on large devices, the smaller on all others."""
MORE_GPUS = (2, 4, 8)
"""That boxes are sold with."""


class OnGpu(msgspec.Struct, frozen=True, kw_only=True):
    """One engine and variant on one group of equal GPUs."""

    engine: Engine
    variant: Variant
    hardware: Hardware
    gpus: tuple[Gpu, ...]
    taken: Taken
    known: Known

    def best(self, wanted: Wanted) -> Way | Refusal:
        """The best of all ways to spread it; or why there is none, and what would help."""
        splits = [
            split
            for split in self.engine.splits(self.variant, self.gpus, self.hardware.links)
            if split.gpus <= len(self.gpus)
        ]
        ways = [way for split in splits if (way := self._on(split, wanted)) is not None]
        if not ways:
            return self._refusal(splits, wanted)
        return max((_first_fine(ways, count) for count in {way.settings.split.gpus for way in ways}), key=_rank)

    def _on(self, split: Split, wanted: Wanted) -> Way | None:
        gpus = budget.pick(self.gpus, split.gpus, self.hardware, self.taken)
        share = budget.share(gpus, self.hardware, self.taken)
        limit = budget.of_gpus(gpus, share, self.hardware)
        bare = Settings(
            context_tokens=0,
            slots=0,
            threads=1,
            split=split,
            devices=tuple(gpu.index for gpu in gpus),
            gpu_memory_share=share,
        )
        found = [self._with_context(bare, context, counts, limit, wanted) for context, counts in self._offers(wanted)]
        ways = [self._way(settings, wanted, limit, gpus) for settings in found if settings is not None]
        return max(ways, key=lambda way: way.rank, default=None)

    def _with_context(
        self, bare: Settings, context: int, counts: tuple[int, ...], limit: int, wanted: Wanted
    ) -> Settings | None:
        """The most slots and the largest steps with that context, from generous to meagre."""
        meagre = _with(bare, context, counts[-1], BATCHED_TOKENS[-1])
        if self._filled(meagre, limit, wanted) is None:
            return None
        offers = (_with(bare, context, slots, batched) for slots, batched in product(counts, BATCHED_TOKENS))
        return next((filled for offer in offers if (filled := self._filled(offer, limit, wanted)) is not None), None)

    def _offers(self, wanted: Wanted) -> Iterator[tuple[int, tuple[int, ...]]]:
        """Contexts, each with numbers of slots: from generous to meagre, in the order in which ways are ranked."""
        most = wanted.tokens(self.variant, "gpu") if wanted.modest else self.variant.facts.context
        ceiling = 1 if wanted.modest else SLOTS["gpu"]
        if self._is_unknown():
            recipe = self._recipe()
            most = (recipe and recipe.context) or wanted.tokens(self.variant, "gpu")
            ceiling = min(ceiling, (recipe and recipe.slots) or FEW_SLOTS)
        contexts = (wanted.context,) if wanted.context else self._contexts(wanted, most)
        counts = (wanted.slots,) if wanted.slots else halved(ceiling, 1)
        return ((context, counts) for context in contexts)

    def _contexts(self, wanted: Wanted, most: int | None) -> tuple[int, ...]:
        """Halvings of the model's own above the wanted one, then the wanted one and its halvings."""
        target = min(wanted.tokens(self.variant, "gpu"), most or CONTEXT_TOKENS["gpu"])
        more = tuple(tokens for tokens in halved(most or target, target) if tokens > target)
        return (*more, *halved(target, MIN_CONTEXT_TOKENS))

    def _is_unknown(self) -> bool:
        """Nobody can compute its KV cache: then no more is promised than is wanted, or than a recipe says."""
        probe = Settings(context_tokens=MIN_CONTEXT_TOKENS, slots=1, threads=1)
        return self.engine.kv_bytes(self.variant, probe, 1) is None

    def _recipe(self) -> Override | None:
        """What was published for this generation."""
        generation = self.gpus[0].generation
        return next((one for one in self.variant.facts.overrides if one.generation == generation), None)

    def _filled(self, settings: Settings, limit: int, wanted: Wanted) -> Settings | None:
        """With the KV cache that the rest of the room holds; None where that is too little."""
        left = limit - total(self._memory(settings, 0))
        need = self._cache_bytes(settings)
        if need is None:
            return settings if left >= limit * UNKNOWN_CACHE_SHARE else None
        if need > left:
            return None
        return msgspec.structs.replace(settings, kv_cache_bytes=need if wanted.modest else left)

    def _cache_bytes(self, settings: Settings) -> int | None:
        """On one device: one request of the whole context, and all slots with an average one. None: not known."""
        average = msgspec.structs.replace(settings, context_tokens=min(settings.context_tokens, MEAN_TOKENS))
        whole = self.engine.kv_bytes(self.variant, settings, 1)
        many = self.engine.kv_bytes(self.variant, average, -(-settings.slots // settings.split.data))
        return None if whole is None or many is None else max(whole, many)

    def _memory(self, settings: Settings, kv_cache_bytes: int | None) -> tuple[Term, ...]:
        settings = msgspec.structs.replace(settings, kv_cache_bytes=kv_cache_bytes)
        memory = self.engine.memory(self.variant, settings, self.hardware)
        return (*memory, *experience.terms(self.variant, self.engine, settings, self.hardware, self.known))

    def _way(self, settings: Settings, wanted: Wanted, limit: int, gpus: tuple[Gpu, ...]) -> Way:
        tokens = self.engine.kv_tokens(self.variant, settings)
        unread = any(self.hardware.reading(gpu).memory_free_bytes is None for gpu in gpus)
        unknown = (
            *(() if settings.kv_cache_bytes is not None else (UNKNOWN_CACHE,)),
            *((settings.split.doubt,) if settings.split.doubt else ()),
            *(("how much memory of the GPU is free is not known",) if unread else ()),
        )
        target = wanted.tokens(self.variant, "gpu")
        memory = self._memory(settings, settings.kv_cache_bytes)
        kept = total(memory)
        if settings.kv_cache_bytes is None:
            # The engine takes all of its share.
            kept = int(kept / (1 - UNKNOWN_CACHE_SHARE)) + 1 if wanted.modest else limit
        whole = "" if tokens is None else f", {tokens // settings.context_tokens} of them whole at once"
        return Way(
            engine=self.engine,
            variant=self.variant,
            settings=settings,
            memory=memory,
            taken={gpu.index: budget.held(kept, budget.own_bytes(gpu, self.hardware)) for gpu in gpus},
            room_bytes=limit,
            kv_tokens=tokens,
            wanted_tokens=target,
            limits=(*shortfalls(settings, wanted, target), *unknown, *self._lost()),
            because=(
                f"GPU {', '.join(map(str, settings.devices))} of {len(self.gpus)}: {settings.split.because}",
                f"a memory share of {settings.gpu_memory_share} is {output.size(limit)} on each; "
                f"{settings.slots} requests of up to {settings.context_tokens} tokens{whole}",
            ),
        )

    def _lost(self) -> tuple[str, ...]:
        error = self.hardware.gpu_error
        return () if error is None else (f"not every GPU can be read: {error}",)

    def _refusal(self, splits: list[Split], wanted: Wanted) -> Refusal:
        """By the widest way: it needs least on each GPU."""
        if not all(gpu.memory_total_bytes for gpu in self.gpus):
            return Refusal(reason="the memory of these GPUs is not known", change="ownweights doctor")
        if not splits:
            return Refusal(reason=f"it cannot be spread over {len(self.gpus)} of these", change="another variant")
        needs = [(self._least(split, wanted), split) for split in splits]
        need, split = min(needs, key=lambda pair: pair[0])
        gpus = budget.pick(self.gpus, split.gpus, self.hardware, self.taken)
        limit = budget.of_gpus(gpus, budget.share(gpus, self.hardware, self.taken), self.hardware)
        fix = self._fix(splits, wanted) or self._more_gpus(need, wanted) or self._more_memory(need, split, gpus)
        return Refusal(
            reason=f"needs {output.size(need)} on each of {_gpus(split.gpus)}, and {output.size(limit)} can be taken"
            + beside(self.taken),
            change=fix.wishes
            or f"{_gpus(fix.gpus)} with {output.size(fix.memory_bytes)} free on each, or a smaller variant",
            fix=fix,
        )

    def _least(self, split: Split, wanted: Wanted) -> int:
        """On one device, for the most meagre offer."""
        *_, (context, counts) = self._offers(wanted)
        bare = Settings(context_tokens=0, slots=0, threads=1, split=split)
        settings = _with(bare, context, counts[-1], BATCHED_TOKENS[-1])
        cache = self._cache_bytes(settings)
        fixed = total(self._memory(settings, 0))
        return int(fixed / (1 - UNKNOWN_CACHE_SHARE)) + 1 if cache is None else fixed + cache

    def _fix(self, splits: list[Split], wanted: Wanted) -> Fix | None:
        """Less of what was insisted on, where that is enough."""
        for context in halved(wanted.context, MIN_CONTEXT_TOKENS) if wanted.context else (None,):
            for slots in halved(wanted.slots, 1) if wanted.slots else (None,):
                less = Wanted(context=context, slots=slots, modest=wanted.modest)
                if less != wanted and any(self._on(split, less) for split in splits):
                    return Fix(
                        context=context if context != wanted.context else None,
                        slots=slots if slots != wanted.slots else None,
                    )
        return None

    def _more_gpus(self, need: int, wanted: Wanted) -> Fix | None:
        """So many of the same kind, all free, where no free memory of those that are here would do."""
        first = self.gpus[0]
        own = budget.own_bytes(first, self.hardware)
        if budget.needed_of_gpu(own, need) <= own:
            return None
        for count in (count for count in MORE_GPUS if count > len(self.gpus)):
            gpus = tuple(msgspec.structs.replace(first, index=index) for index in range(count))
            free = tuple(GpuReading(index=index, memory_free_bytes=own) for index in range(count))
            now = msgspec.structs.replace(self.hardware.now, gpus=free)
            hardware = msgspec.structs.replace(self.hardware, gpus=gpus, links=(), now=now)
            larger = msgspec.structs.replace(self, hardware=hardware, gpus=gpus, taken={})
            splits = self.engine.splits(self.variant, gpus, ())
            if any(larger._on(split, wanted) for split in splits):
                return Fix(memory_bytes=own, gpus=count)
        return None

    def _more_memory(self, need: int, split: Split, gpus: tuple[Gpu, ...]) -> Fix:
        held = max(self.taken.get(gpu.index, 0) for gpu in gpus)
        size = min(budget.own_bytes(gpu, self.hardware) for gpu in gpus)
        return Fix(memory_bytes=budget.needed_of_gpu(size, need) + held, gpus=split.gpus)


def _first_fine(ways: list[Way], gpus: int) -> Way:
    """Of the ways over so many GPUs the engine's first that lacks nothing: what a recipe advises against comes later,
    though it may have room for more."""
    alike = [way for way in ways if way.settings.split.gpus == gpus]
    return next((way for way in alike if not way.limits), max(alike, key=_rank))


def _rank(way: Way) -> tuple[int, ...]:
    return way.rank


def _with(settings: Settings, context: int, slots: int, batched: int) -> Settings:
    return msgspec.structs.replace(settings, context_tokens=context, slots=slots, batched_tokens=batched)


def _gpus(count: int | None) -> str:
    return f"{count} GPU{'' if count == 1 else 's'}"
