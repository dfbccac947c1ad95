"""Context and slots on a CPU: what fits, what is lowered first, what never is, and what would help."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.engine import Figures, Fix, Refusal
from deploy.hardware import Hardware
from deploy.lockfile import Variant
from deploy.measured import NOTHING, Known
from deploy.memory import total
from deploy.planning.budget import CPU_SHARE, RAM
from deploy.planning.on_cpu import OnCpu
from deploy.planning.way import Wanted, Way
from tests.deploy.boxes import ENGINE_BYTES, GB, LLAMACPP, box, seen, variant

KV = 12288


def best(
    chosen: Variant | None = None,
    hardware: Hardware | None = None,
    known: Known = NOTHING,
    taken: int = 0,
    **asked: Any,
) -> Way | Refusal:
    sizing = OnCpu(
        engine=LLAMACPP,
        variant=chosen or variant(kv=KV),
        hardware=hardware or box(),
        taken={RAM: taken},
        known=known,
    )
    return sizing.best(Wanted(**asked))


def way(*args: Any, **asked: Any) -> Way:
    found = best(*args, **asked)
    assert isinstance(found, Way)
    return found


def refusal(*args: Any, **asked: Any) -> Refusal:
    found = best(*args, **asked)
    assert isinstance(found, Refusal)
    return found


def room_for(context: int, slots: int, *, size: int = GB) -> Hardware:
    """A box that has just enough for that."""
    need = size + ENGINE_BYTES + context * slots * KV
    return box(free_bytes=int(need / CPU_SHARE) + 1)


def test_plenty_of_memory_gives_the_whole_offer() -> None:
    found = way()
    settings = found.settings
    assert (settings.context_tokens, settings.slots, settings.threads) == (8192, 8, 4)
    assert settings.kv_cache_bytes == 8192 * 8 * KV
    assert found.kv_tokens == 8192 * 8
    assert found.limits == ()
    assert settings.devices == ()
    assert found.taken == {RAM: found.need_bytes}


def test_slots_are_lowered_before_context() -> None:
    settings = way(hardware=room_for(8192, 2)).settings
    assert (settings.context_tokens, settings.slots) == (8192, 2)
    settings = way(hardware=room_for(4096, 1)).settings
    assert (settings.context_tokens, settings.slots) == (4096, 1)


def test_what_was_lowered_is_a_limit() -> None:
    assert way(hardware=room_for(4096, 1)).limits == (
        "a context of 4096 tokens, less than the 8192 that a plan aims for",
        "1 at once, fewer than the 8 that a plan aims for",
    )
    assert way(hardware=room_for(8192, 2)).limits == ("2 at once, fewer than the 8 that a plan aims for",)


def test_a_models_own_context_is_the_most_and_no_limit() -> None:
    found = way(variant(context=4096))
    assert (found.settings.context_tokens, found.limits) == (4096, ())


def test_a_modest_way_takes_one_slot_of_the_wanted_context() -> None:
    found = way(modest=True)
    assert (found.settings.context_tokens, found.settings.slots, found.limits) == (8192, 1, ())
    assert way(modest=True, slots=3).settings.slots == 3


def test_the_users_context_and_slots_are_never_lowered() -> None:
    found = way(hardware=room_for(32768, 8), context=32768, slots=8)
    assert (found.settings.context_tokens, found.settings.slots) == (32768, 8)
    refused = refusal(hardware=box(free_bytes=2 * GB), context=32768, slots=8)
    assert "needs 4.3 GB" in refused.reason
    assert "1.8 GB of RAM can be taken" in refused.reason


def test_less_of_what_was_insisted_on_is_offered_as_a_fix() -> None:
    refused = refusal(hardware=room_for(8192, 1), context=32768)
    assert refused.fix == Fix(context=8192)
    assert refused.change == "context = 8192"
    assert refusal(hardware=room_for(2048, 2), slots=8).fix == Fix(slots=2)
    assert refusal(hardware=room_for(2048, 1), slots=4, context=8192).fix == Fix(slots=1, context=2048)


def test_where_nothing_less_helps_the_memory_is_named() -> None:
    refused = refusal(variant(size=20 * GB, kv=KV))
    assert refused.fix is not None
    assert refused.fix.memory_bytes == pytest.approx((20 * GB + ENGINE_BYTES + 2048 * KV) / CPU_SHARE, abs=2)
    assert refused.change.startswith("22.4 GB of free RAM")


def test_what_other_models_take_counts_and_is_in_the_fix() -> None:
    assert isinstance(best(hardware=box(free_bytes=3 * GB)), Way)
    refused = refusal(hardware=box(free_bytes=3 * GB), taken=2 * GB)
    assert refused.fix is not None
    assert isinstance(best(hardware=box(free_bytes=refused.fix.memory_bytes), taken=2 * GB), Way)
    assert refused.reason == "needs 1.1 GB, and 700 MB of RAM can be taken beside the 2.0 GB of other models"
    assert "other models" not in refusal(variant(size=20 * GB, kv=KV)).reason


def test_unknown_free_memory_is_said_and_not_guessed() -> None:
    found = way(hardware=box(free_bytes=None))
    assert found.room_bytes is None
    assert "free RAM: unknown" in found.because[0]


class TestUnknownCache:
    """Nobody can say how large it is: the least is promised, and some room is kept."""

    def test_it_is_a_limit(self) -> None:
        found = way(variant(kv=None))
        assert found.settings.kv_cache_bytes is None
        assert found.kv_tokens is None
        assert found.limits == (
            "a context of 2048 tokens, less than the 8192 that a plan aims for",
            "1 at once, fewer than the 8 that a plan aims for",
            "the size of its KV cache is not known",
        )

    def test_one_slot_of_the_least_useful_context_is_all_that_is_promised(self) -> None:
        settings = way(variant(kv=None), box(free_bytes=1000 * GB)).settings
        assert (settings.context_tokens, settings.slots) == (2048, 1)
        assert way(variant(kv=None, context=1024)).settings.context_tokens == 1024

    def test_the_users_words_stand(self) -> None:
        settings = way(variant(kv=None), context=8192, slots=4).settings
        assert (settings.context_tokens, settings.slots) == (8192, 4)

    def test_a_tenth_of_the_room_is_kept_free_for_it(self) -> None:
        """0.9 of 10 GB can be taken, and 0.9 of that."""
        weights = 8_100_000_000 - ENGINE_BYTES
        found = way(variant(size=weights, kv=None), box(free_bytes=10 * GB))
        assert found.room_bytes == found.need_bytes == 8_100_000_000
        assert isinstance(best(variant(size=weights + 1, kv=None), box(free_bytes=10 * GB)), Refusal)
        assert isinstance(best(variant(size=weights + 1, kv=0), box(free_bytes=10 * GB)), Way)

    def test_the_memory_that_is_named_is_enough(self) -> None:
        refused = refusal(variant(size=20 * GB, kv=None), taken=2 * GB)
        assert refused.fix is not None
        enough = refused.fix.memory_bytes
        assert isinstance(best(variant(size=20 * GB, kv=None), box(free_bytes=enough), taken=2 * GB), Way)


def test_threads_are_the_cores_that_can_be_used() -> None:
    hardware = box(cores=8)
    quota = msgspec.structs.replace(hardware, cpu=msgspec.structs.replace(hardware.cpu, quota_cores=2.5))
    assert way(hardware=quota).settings.threads == 2


def test_more_than_was_predicted_is_counted_and_less_is_not() -> None:
    chosen, hardware = variant(kv=KV), room_for(8192, 8)
    more = seen(chosen, LLAMACPP, hardware, predicted=Figures(peak_bytes=GB), peak_bytes=GB + 500_000_000)
    found = way(chosen, hardware, more)
    assert found.settings.slots == 2
    assert found.memory[-1].bytes == 500_000_000
    assert found.memory[-1].provenance == "measured"
    less = seen(chosen, LLAMACPP, hardware, predicted=Figures(peak_bytes=GB), peak_bytes=GB // 2)
    assert way(chosen, hardware, less).memory == way(chosen, hardware).memory


@given(
    free_bytes=st.integers(0, 64 * GB),
    size=st.integers(1, 64 * GB),
    layers=st.none() | st.integers(0, 2000),
    context=st.none() | st.integers(1, 100_000),
    slots=st.none() | st.integers(1, 32),
    taken=st.integers(0, 8 * GB),
)
def test_an_offer_fits_and_a_fix_works(
    *, free_bytes: int, size: int, layers: int | None, context: int | None, slots: int | None, taken: int
) -> None:
    chosen = variant(size=size, kv=None if layers is None else layers * 512)
    found = best(chosen, box(free_bytes=free_bytes), taken=taken, context=context, slots=slots)
    if isinstance(found, Way):
        assert total(found.memory) <= free_bytes * CPU_SHARE - taken
        return
    fix = found.fix
    assert fix is not None
    again = best(
        chosen,
        box(free_bytes=fix.memory_bytes or free_bytes),
        taken=taken,
        context=fix.context or context,
        slots=fix.slots or slots,
    )
    assert isinstance(again, Way)
