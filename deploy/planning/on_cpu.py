"""Context and slots on a CPU: every slot holds its whole context in RAM. Pure."""

from __future__ import annotations

import msgspec

from deploy import output
from deploy.engine import Engine, Fix, Refusal, Settings
from deploy.hardware import Hardware
from deploy.lockfile import Variant
from deploy.measured import Known
from deploy.memory import Term, total
from deploy.planning import budget, experience
from deploy.planning.budget import CPU_SHARE, RAM, Taken
from deploy.planning.way import (
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


class OnCpu(msgspec.Struct, frozen=True, kw_only=True):
    """One engine and variant on the CPU of one box."""

    engine: Engine
    variant: Variant
    hardware: Hardware
    taken: Taken
    known: Known

    def best(self, wanted: Wanted) -> Way | Refusal:
        """The most context, then the most slots, that fit; or why nothing does, and what would help."""
        tokens = wanted.tokens(self.variant, "cpu")
        known = self._cache_is_known
        least = min(tokens, MIN_CONTEXT_TOKENS)
        contexts = (wanted.context,) if wanted.context else halved(tokens, least) if known else (least,)
        ceiling = wanted.slots or (SLOTS["cpu"] if known and not wanted.modest else 1)
        counts = (ceiling,) if wanted.slots else halved(ceiling, 1)
        limit = self._limit
        for context in contexts:
            for count in counts:
                settings, memory = self._at(context, count)
                if limit is None or total(memory) <= limit:
                    return self._way(settings, memory, wanted, tokens, limit)
        need = total(self._at(contexts[-1], counts[-1])[1])
        return Refusal(
            reason=f"needs {output.size(need)}, and {output.size(limit)} of RAM can be taken{beside(self.taken)}",
            change=self._change(fix := self._fix(wanted, contexts[-1], counts[-1], limit or 0)),
            fix=fix,
        )

    @property
    def _cache_is_known(self) -> bool:
        return self._at(MIN_CONTEXT_TOKENS, 1)[0].kv_cache_bytes is not None

    @property
    def _limit(self) -> int | None:
        """What can be taken; a part of it is left for a cache that nobody can compute."""
        limit = budget.of_ram(self.hardware, self.taken)
        return limit if limit is None or self._cache_is_known else int(limit * (1 - UNKNOWN_CACHE_SHARE))

    def _at(self, context: int, slots: int) -> tuple[Settings, tuple[Term, ...]]:
        settings = Settings(context_tokens=context, slots=slots, threads=self.hardware.cores)
        cache = self.engine.kv_bytes(self.variant, settings, slots)
        settings = msgspec.structs.replace(settings, kv_cache_bytes=cache)
        memory = self.engine.memory(self.variant, settings, self.hardware)
        return settings, (*memory, *experience.terms(self.variant, self.engine, settings, self.hardware, self.known))

    def _way(self, settings: Settings, memory: tuple[Term, ...], wanted: Wanted, tokens: int, limit: int | None) -> Way:
        free = self.hardware.memory_free_bytes
        unknown = (
            *(() if settings.kv_cache_bytes is not None else (UNKNOWN_CACHE,)),
            *(() if free is not None else ("how much RAM is free is not known",)),
        )
        threads = settings.threads
        return Way(
            engine=self.engine,
            variant=self.variant,
            settings=settings,
            memory=memory,
            room_bytes=limit,
            kv_tokens=self.engine.kv_tokens(self.variant, settings),
            taken={RAM: total(memory)},
            wanted_tokens=tokens,
            limits=(*shortfalls(settings, wanted, tokens), *unknown),
            because=(
                f"{settings.slots} slot{'s' if settings.slots > 1 else ''} of {settings.context_tokens} tokens need "
                f"{output.size(total(memory))} (free RAM: {output.size(free)})",
                f"{threads} thread{'s' if threads > 1 else ''}: the usable cores "
                "(the least of physical, allowed and whole quota)",
            ),
        )

    def _fix(self, wanted: Wanted, context: int, slots: int, limit: int) -> Fix:
        """Less of what was insisted on, where that is enough; else the memory that is."""
        for tokens in halved(context, MIN_CONTEXT_TOKENS):
            for fewer in halved(slots, 1):
                if total(self._at(tokens, fewer)[1]) <= limit:
                    return Fix(context=tokens if tokens != context else None, slots=fewer if fewer != slots else None)
        need = total(self._at(context, slots)[1])
        if not self._cache_is_known:
            need = int(need / (1 - UNKNOWN_CACHE_SHARE)) + 1
        return Fix(memory_bytes=int((need + self.taken.get(RAM, 0)) / CPU_SHARE) + 1)

    def _change(self, fix: Fix) -> str:
        return fix.wishes or f"{output.size(fix.memory_bytes)} of free RAM, or a smaller model"
