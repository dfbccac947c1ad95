"""`auto`: the best catalogue row that fits this box, answers at a usable speed and can be reached from here.

Order of quality: total parameters, the one fact that every row states (its source is the row's own); of rows as
large the newer one. Licence conditions, memory, speed and reach then pass rows over, each with what would change it.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from deploy import catalog, hub, output
from deploy.catalog import Row, sketch
from deploy.config import EngineWish, ModelWish
from deploy.engine import Engine
from deploy.errors import PlanError
from deploy.hardware import Hardware
from deploy.lockfile import Passed, Variant
from deploy.measured import NOTHING, Known, store
from deploy.plan import Speed
from deploy.planning import experience, fitting
from deploy.planning.choice import Choice, telling
from deploy.planning.fitting import ANY
from deploy.planning.way import Way
from deploy.resolving.locking import Chosen

UNSIZED = "its size is not known before it is locked"
AWAY = "only the Hub has it, and it cannot be reached"
MEMORY_SHARE = 0.7
"""Of free memory, weights and one context together: room for other slots, other programs and the page cache."""
CONTEXT_TOKENS = 8192
USABLE_TOKENS_PER_S = 15.0
"""Per stream, on a CPU; about the pace of fast reading."""


class Box(msgspec.Struct, frozen=True, kw_only=True):
    """What the choice is made for. ``insisted``: the engines that models.toml names; ``reachable``: a Hub answers."""

    hardware: Hardware
    engines: tuple[Engine, ...]
    insisted: EngineWish = ANY
    known: Known = NOTHING
    reachable: bool


def choose(hardware: Hardware, engines: tuple[Engine, ...], model: str, *, insisted: EngineWish = ANY) -> Chosen:
    """The row for the model of that name. Asks whether a Hub answers, and says loudly where none does."""
    reachable = hub.reachable()
    box = Box(hardware=hardware, engines=engines, insisted=insisted, known=store.read(), reachable=reachable)
    best = pick(catalog.rows(), box)
    missed = [passed.id for passed in best.passed if passed.reason == AWAY]
    if not reachable:
        instead = f" instead of `{missed[0]}`" if missed else ""
        output.warn(
            f"the Hub ({hub.address()}) cannot be reached: `{model}` is `{best.id}`{instead}, from the package index. "
            f"Later: ownweights lock --upgrade {model} && make deploy",
            about="hub",
        )
    return best


def pick(rows: tuple[Row, ...], box: Box) -> Chosen:
    """Pure. Raises PlanError where no row is left, naming the reason of each."""
    passed: list[Passed] = []
    for row in sorted(rows, key=_quality, reverse=True):
        found = _weigh(row, box)
        if isinstance(found, Way) and (box.reachable or row.indexed):
            return Chosen(
                id=row.id, variant=found.variant.key, reason=_because(row, found, box, passed), passed=tuple(passed)
            )
        passed.append(found if isinstance(found, Passed) else _away(row))
    listed = "".join(f"\n  {entry.id}: {entry.reason} → {entry.change}" for entry in passed)
    raise PlanError(f"no catalogue row fits this box:{listed}", hint='name one: source = "hf:org/repo" in models.toml')


def _quality(row: Row) -> tuple[float, str, str]:
    return row.total_params_b or 0.0, row.as_of.isoformat(), row.id


def _away(row: Row) -> Passed:
    return Passed(id=row.id, reason=AWAY, change="a network that reaches the Hub")


def _weigh(row: Row, box: Box) -> Way | Passed:
    """The best of its variants that are comfortable here: one with more bits that is not stands in nobody's way."""
    licence = row.licence
    if licence.commercial != "yes":
        return Passed(
            id=row.id,
            reason=f"its licence ({licence.spdx}) has conditions or is not confirmed",
            change=f'source = "{row.id}" and allow-licence = "{licence.spdx}" in models.toml',
        )
    found = [_one(row, (variant,), box).way for variant in _variants(row, box)]
    ways = [way for way in found if way is not None]
    fine = [way for way in ways if next(_discomforts(way, box), None) is None]
    if fine:
        return max(fine, key=lambda way: (-box.engines.index(way.engine), way.rank))
    if ways:
        nearest = min(ways, key=lambda way: way.least_bytes)
        return Passed(id=row.id, reason=next(_discomforts(nearest, box)), change=f'source = "{row.id}" in models.toml')
    told = telling(_one(row, _variants(row, box), box).rejected)
    return Passed(id=row.id, reason=told.reason if told else UNSIZED, change=told.change if told else "lock it by name")


def _variants(row: Row, box: Box) -> tuple[Variant, ...]:
    """What can be had; of a row that only the Hub has all, to know what is missed."""
    variants = sketch.of(row)
    indexed = tuple(one for one in variants if any(place.kind == "index" for place in one.places))
    return variants if box.reachable or not indexed else indexed


def _one(row: Row, variants: tuple[Variant, ...], box: Box) -> Choice:
    wish = ModelWish(name=row.id, context=min(CONTEXT_TOKENS, row.context_length or CONTEXT_TOKENS), slots=1)
    return fitting.choose(row, wish, box.hardware, box.engines, box.known, insisted=box.insisted, variants=variants)


def _discomforts(way: Way, box: Box) -> Iterator[str]:
    """Why it is not for a choice that nobody asked for, though it would run."""
    need, free = way.least_bytes, _free(way, box.hardware)
    if way.settings.kv_cache_bytes is None:
        yield "the size of its KV cache is not known before it is locked"
    if free is not None and need > free * MEMORY_SHARE:
        yield f"{output.size(need)} is more than {MEMORY_SHARE:.0%} of {output.size(free)} free memory"
    pace = _pace(way, box)
    if way.engine.device == "cpu" and pace is not None and pace.tokens_per_s < USABLE_TOKENS_PER_S:
        yield f"{pace.provenance} {pace.tokens_per_s:.0f} tokens/s per stream, fewer than {USABLE_TOKENS_PER_S:.0f}"


def _free(way: Way, hardware: Hardware) -> int | None:
    """Of the device that is counted: RAM, or the fullest of the GPUs."""
    if way.engine.device == "cpu":
        return hardware.memory_free_bytes
    devices = [gpu for gpu in hardware.gpus if gpu.index in way.settings.devices]
    free = [hardware.reading(gpu).memory_free_bytes for gpu in devices]
    return min((one for one in free if one is not None), default=None)


def _pace(way: Way, box: Box) -> Speed | None:
    return experience.tokens_per_s(way.variant, way.engine, way.settings, box.hardware, box.known)


def _because(row: Row, way: Way, box: Box, passed: list[Passed]) -> str:
    text = f"auto: {row.id} is the catalogue row with the most parameters for this box"
    if pace := _pace(way, box):
        text += f" ({pace.provenance} {pace.tokens_per_s:.0f} tokens/s per stream)"
    return f"{text}; next larger, {passed[-1].id}: {passed[-1].reason}" if passed else text
