"""Which engine and which variant: every pair is weighed, one is chosen, the others say why they were not. Pure."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from deploy import output
from deploy.config import Config, ModelWish
from deploy.engine import Engine, Fix, Refusal
from deploy.hardware import Gpu, Hardware
from deploy.lockfile import Variant
from deploy.measured import NOTHING, Known
from deploy.plan import Rejection
from deploy.planning import budget
from deploy.planning.budget import Taken
from deploy.planning.on_cpu import OnCpu
from deploy.planning.on_gpu import OnGpu
from deploy.planning.way import FEW_SLOTS, Wanted, Way

LIFTED = "`ownweights plan --forget` drops what was measured here"


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """``way`` is None where nothing works."""

    way: Way | None
    rejected: tuple[Rejection, ...]


class Chooser(msgspec.Struct, frozen=True, kw_only=True):
    """One model's wish on one box."""

    config: Config
    wish: ModelWish
    variants: tuple[Variant, ...]
    hardware: Hardware
    engines: tuple[Engine, ...]
    known: Known = NOTHING
    preferred: str | None = None
    """Of the variants the one that `auto` weighed, where nothing else is wished for."""

    def choose(self, taken: Taken, *, modest: bool = False) -> Choice:
        """The first engine that works, with the variant that ranks highest on it."""
        wanted = Wanted.of(self.wish, modest=modest)
        weighed = [
            (engine, variant, self._weigh(engine, variant, wanted, taken))
            for engine in self.engines
            for variant in self.variants
        ]
        ways = [found for _, _, found in weighed if isinstance(found, Way)]
        first = [way for way in ways if way.engine is ways[0].engine]
        preferred = [way for way in first if way.variant.key == self.preferred]
        best = max(preferred or first, key=lambda way: way.rank, default=None)
        rejected = tuple(
            self._rejection(engine, variant, found, best) for engine, variant, found in weighed if found is not best
        )
        if best is None:
            return Choice(way=None, rejected=rejected)
        reasons = (_engine_reason(best, self), *_variant_reason(best, self), *best.because)
        return Choice(way=msgspec.structs.replace(best, because=reasons), rejected=rejected)

    def falls(self, engine: Engine) -> bool:
        """A box with a GPU never falls to the CPU in silence; naming a CPU-only engine is not silence."""
        expected = bool(self.hardware.usable_gpus or self.hardware.gpu_error)
        named = [one.device for one in self.engines if one.name == self.wish.engine]
        asked = self.config.engines.gpu == "none" or (bool(named) and "gpu" not in named)
        return engine.device == "cpu" and expected and not asked

    def _rejection(self, engine: Engine, variant: Variant, found: Way | Refusal, best: Way | None) -> Rejection:
        entry = Rejection(
            what=f"{engine.name} on {engine.device}, {variant.key}",
            reason="",
            change="",
            device=engine.device,
            reads=variant.format in engine.formats,
        )
        besides = self._besides(engine)
        if isinstance(found, Refusal):
            return msgspec.structs.replace(entry, reason=found.reason, change=found.change + besides, fix=found.fix)
        if best is None:
            raise AssertionError("a way that works, and none was chosen")
        reason, change = self._outranked(found, best)
        return msgspec.structs.replace(entry, reason=reason, change=change + besides)

    def _outranked(self, found: Way, best: Way) -> tuple[str, str]:
        """Why the best is better, and what insists on the other."""
        chosen = f"{best.engine.name} on {best.engine.device}, {best.variant.key}"
        if found.engine is not best.engine:
            return f"{chosen} is preferred and fits", f'engine = "{found.engine.name}" for this model'
        insist = f'precision = "{found.variant.precision}" for this model'
        if best.variant.key == self.preferred:
            return f"{chosen} is the variant that auto weighed, and fits", insist
        tokens = min(found.settings.context_tokens, found.wanted_tokens)
        if tokens < min(best.settings.context_tokens, best.wanted_tokens):
            return f"it fits with a context of {tokens} only, {chosen} with more", insist
        if found.settings.slots < min(best.settings.slots, FEW_SLOTS):
            return f"it fits with {found.settings.slots} at once only, {chosen} with more", insist
        return f"{chosen} fits as well and keeps more of the weights", insist

    def _besides(self, engine: Engine) -> str:
        """What the CPU needs to be said on a box with a GPU, whatever else is changed."""
        return ', and [engines] gpu = "none"' if self.falls(engine) else ""

    def _weigh(self, engine: Engine, variant: Variant, wanted: Wanted, taken: Taken) -> Way | Refusal:
        refusal = self._unwanted(engine, variant)
        if refusal is None and engine.device == "cpu":
            refusal = engine.refuse(variant, self.hardware) or _too_long(variant, wanted)
            sizing = OnCpu(engine=engine, variant=variant, hardware=self.hardware, taken=taken, known=self.known)
            return refusal or self._corrected(sizing, wanted)
        if refusal is not None:
            return refusal
        found = [self._on_group(engine, variant, gpus, wanted, taken) for gpus in budget.groups(self.hardware) or ((),)]
        ways = [one for one in found if isinstance(one, Way)]
        # Of refusals one that says by numbers what would help.
        refusals = sorted(found, key=lambda one: isinstance(one, Refusal) and one.fix is None)
        return max(ways, key=lambda way: way.rank) if ways else refusals[0]

    def _on_group(
        self, engine: Engine, variant: Variant, gpus: tuple[Gpu, ...], wanted: Wanted, taken: Taken
    ) -> Way | Refusal:
        """On GPUs that are alike: what one of another kind lacks is no reason against these."""
        alike = msgspec.structs.replace(self.hardware, gpus=gpus or self.hardware.gpus)
        refusal = engine.refuse(variant, alike) or _too_long(variant, wanted)
        if refusal is not None:
            return refusal
        group = OnGpu(engine=engine, variant=variant, hardware=self.hardware, gpus=gpus, taken=taken, known=self.known)
        return self._corrected(group, wanted)

    def _corrected(self, sizing: OnCpu | OnGpu, wanted: Wanted) -> Way | Refusal:
        """With the context that the engine itself named when a larger one did not start here."""
        found = sizing.best(wanted)
        if isinstance(found, Refusal):
            return self._unlearned(sizing, wanted) or found
        if wanted.context:
            return found
        entry = self.known.correction(found.variant, found.engine, self.hardware, found.settings)
        named = entry.measured.context_tokens if entry else None
        if entry is None or named is None:
            return found
        again = sizing.best(msgspec.structs.replace(wanted, context=named))
        if isinstance(again, Refusal):
            return again
        reason = (
            f"a context of {named} tokens: {found.settings.context_tokens} did not start ({entry.correction}); {LIFTED}"
        )
        again = msgspec.structs.replace(again, wanted_tokens=found.wanted_tokens)
        if named < found.wanted_tokens:
            return msgspec.structs.replace(again, limits=(*again.limits, reason))
        return msgspec.structs.replace(again, because=(*again.because, reason))

    def _unlearned(self, sizing: OnCpu | OnGpu, wanted: Wanted) -> Way | None:
        """What was measured here is a reason for caution, never the only one to run nothing."""
        if not self.known.entries:
            return None
        found = msgspec.structs.replace(sizing, known=NOTHING).best(wanted)
        if isinstance(found, Refusal):
            return None
        limit = f"a start here took more memory than was predicted, and with that it does not fit; {LIFTED}"
        return msgspec.structs.replace(found, limits=(*found.limits, limit))

    def _unwanted(self, engine: Engine, variant: Variant) -> Refusal | None:
        said = tuple(self.insists(engine, variant))
        return Refusal(reason="; ".join(said), change="leave that out of models.toml") if said else None

    def insists(self, engine: Engine, variant: Variant) -> Iterator[str]:
        """The user's own words against a pair."""
        wish, engines = self.wish, self.config.engines
        if wish.engine is not None and engine.name != wish.engine:
            yield f'the model insists on engine = "{wish.engine}"'
        if engine.device == "gpu" and engines.gpu == "none":
            yield '[engines] gpu = "none"'
        if engine.device == "cpu" and engines.cpu not in (None, engine.name):
            yield f'[engines] cpu = "{engines.cpu}" insists'
        # With a `gguf` source of its own, the precision picks among the files there.
        elsewhere = wish.gguf is not None and variant.format != "gguf"
        if wish.precision is not None and not elsewhere and wish.precision.lower() != variant.precision.lower():
            yield f'the model insists on precision = "{wish.precision}"'


def telling(rejected: tuple[Rejection, ...]) -> Rejection | None:
    """What helps most: the least change that numbers stand behind, on GPUs where there are some; else the first that
    is no matter of the format."""
    fixed = [(entry.fix, entry) for entry in rejected if entry.fix]
    on_gpu = [pair for pair in fixed if pair[1].device == "gpu"]
    if fixed:
        return min(on_gpu or fixed, key=lambda pair: (pair[0].memory_bytes or 0) * (pair[0].gpus or 1))[1]
    return next((entry for entry in rejected if entry.reads), next(iter(rejected), None))


def _too_long(variant: Variant, wanted: Wanted) -> Refusal | None:
    known = variant.facts.context
    if wanted.context is None or known is None or wanted.context <= known:
        return None
    return Refusal(
        reason=f"context = {wanted.context} is more than the model's {known}",
        change=f"context = {known}",
        fix=Fix(context=known),
    )


def _engine_reason(way: Way, chooser: Chooser) -> str:
    hardware = chooser.hardware
    name, kind = way.engine.name, way.variant.format
    if chooser.wish.engine == name:
        return f'models.toml insists on engine = "{name}"'
    if way.engine.device == "gpu":
        names = ", ".join(sorted({gpu.name or output.UNKNOWN for gpu in hardware.usable_gpus}))
        return f"{len(hardware.usable_gpus)} GPU ({names}): {name} is preferred there and reads {kind}"
    why = "the GPUs are left out by models.toml" if hardware.usable_gpus else "no GPU to use"
    return f"{why}: {name} is the first CPU engine that reads {kind}"


def _variant_reason(way: Way, chooser: Chooser) -> tuple[str, ...]:
    """Why this one, where there was a choice among variants of one format; and whose bytes they are."""
    variant = way.variant
    rivals = [other for other in chooser.variants if other.format == variant.format]
    tokens = min(way.settings.context_tokens, way.wanted_tokens)
    best = (
        f"{variant.precision} ({output.size(variant.size)}) keeps most of the weights, of the {variant.format} "
        f"variants ({', '.join(other.precision for other in rivals)}), and reaches {tokens} tokens"
    )
    if variant.key == chooser.preferred:
        best = f"{variant.precision} ({output.size(variant.size)}) is the variant that auto weighed"
    foreign = f"its bytes were quantized by {variant.quantized_by}, not by the model's maker"
    return (*((best,) if len(rivals) > 1 else ()), *((foreign,) if variant.quantized_by else ()))
