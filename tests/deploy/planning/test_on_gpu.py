"""GPUs, context, slots and steps: how far each is lowered, in which order, and what would help."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.dimensions import Override
from deploy.engine import Engine, Figures, Fix, Refusal, Settings, Split
from deploy.hardware import Gpu, Hardware, Link
from deploy.lockfile import Variant
from deploy.measured import NOTHING, Known
from deploy.memory import Term, total
from deploy.planning.budget import CONTEXT_BYTES, STEPS, Taken
from deploy.planning.on_gpu import MEAN_TOKENS, OnGpu
from deploy.planning.way import Wanted, Way
from serving.engines.vllm import VllmGpu
from tests.deploy.boxes import ENGINE_BYTES, GB, VLLM_GPU, Card, StubEngine, box, gpu, seen, variant

KV = 16384
WIDE_KV = 1 << 18
"""So wide that the rounding of shares decides nothing."""
STEP_BYTES = 100_000
"""Per token of a step, of an engine that has such a term."""


class Stepping(StubEngine):
    """With buffers that grow with the step."""

    def memory(self, variant: Variant, settings: Settings, hardware: Hardware) -> tuple[Term, ...]:
        fixed = super().memory(variant, settings, hardware)
        step = msgspec.structs.replace(fixed[0], name="step", bytes=STEP_BYTES * (settings.batched_tokens or 0))
        return (*fixed, step)


def model(size: int = 16 * GB, *, kv: int | None = KV, context: int | None = 32768) -> Variant:
    return variant(kind="safetensors", precision="bf16", size=size, kv=kv, context=context)


def cards(count: int, total_bytes: int = 80 * GB) -> Hardware:
    return box(gpus=tuple(gpu(index, total_bytes=total_bytes) for index in range(count)))


def best(
    chosen: Variant | None = None,
    hardware: Hardware | None = None,
    *,
    engine: Engine = VLLM_GPU,
    taken: Taken | None = None,
    known: Known = NOTHING,
    **asked: Any,
) -> Way | Refusal:
    hardware = hardware or cards(1)
    group = OnGpu(
        engine=engine,
        variant=chosen or model(),
        hardware=hardware,
        gpus=hardware.usable_gpus,
        taken=taken or {},
        known=known,
    )
    return group.best(Wanted(**asked))


def way(*args: Any, **asked: Any) -> Way:
    found = best(*args, **asked)
    assert isinstance(found, Way), found
    return found


def refusal(*args: Any, **asked: Any) -> Refusal:
    found = best(*args, **asked)
    assert isinstance(found, Refusal)
    return found


def leaving(cache_bytes: int, *, size: int = 16 * GB) -> Hardware:
    """One GPU of 100 GB, with room for that much of a KV cache, and for a step of its share more at most."""
    free = size + ENGINE_BYTES + cache_bytes + CONTEXT_BYTES + 100 * GB // STEPS
    return box(gpus=(gpu(total_bytes=100 * GB, free_bytes=free),))


def test_plenty_of_memory_gives_the_models_context_all_slots_and_large_steps() -> None:
    found = way()
    settings = found.settings
    assert (settings.context_tokens, settings.slots, settings.batched_tokens) == (32768, 256, 8192)
    assert (settings.threads, settings.devices, settings.gpu_memory_share) == (1, (0,), 0.92)
    assert found.limits == ()


def test_the_cache_takes_what_is_left_of_the_share() -> None:
    found = way()
    assert found.room_bytes == 73_600_000_000
    assert found.need_bytes == found.room_bytes
    assert found.settings.kv_cache_bytes == 73_600_000_000 - 16 * GB - ENGINE_BYTES
    assert found.kv_tokens == found.settings.kv_cache_bytes // KV


def test_a_modest_way_takes_no_more_than_one_request_of_the_wanted_context() -> None:
    found = way(model(context=131072), modest=True)
    assert (found.settings.context_tokens, found.settings.slots) == (32768, 1)
    assert found.settings.kv_cache_bytes == 32768 * KV
    assert found.limits == ()


def test_slots_are_lowered_until_average_requests_fit() -> None:
    settings = way(hardware=leaving(64 * MEAN_TOKENS * KV)).settings
    assert (settings.context_tokens, settings.slots) == (32768, 64)


def test_one_whole_request_must_fit_or_the_context_is_halved() -> None:
    found = way(hardware=leaving(3 * GB), chosen=model(kv=256 * 512, context=32768))
    assert found.settings.context_tokens == 16384
    assert found.limits[0] == "a context of 16384 tokens, less than the 32768 that a plan aims for"


def test_steps_are_shortened_before_slots_are_lowered() -> None:
    stepping = Stepping("vllm", "gpu", "safetensors")
    hardware = leaving(64 * MEAN_TOKENS * KV + 3000 * STEP_BYTES)
    settings = way(hardware=hardware, engine=stepping).settings
    assert (settings.context_tokens, settings.slots, settings.batched_tokens) == (32768, 64, 2048)
    settings = way(hardware=leaving(64 * MEAN_TOKENS * KV + 8192 * STEP_BYTES), engine=stepping).settings
    assert (settings.slots, settings.batched_tokens) == (64, 8192)


def test_few_slots_are_a_limit() -> None:
    found = way(model(kv=WIDE_KV, context=4096), leaving(5 * MEAN_TOKENS * WIDE_KV))
    assert (found.settings.slots, found.limits) == (4, ("4 at once, fewer than the 8 that a plan aims for",))


@pytest.mark.parametrize(("size", "count"), [(16 * GB, 1), (60 * GB, 1), (72 * GB, 2), (100 * GB, 2), (200 * GB, 4)])
def test_no_more_gpus_than_a_useful_number_of_requests_needs(size: int, count: int) -> None:
    found = way(model(size), cards(8))
    assert found.settings.split.gpus == count
    assert len(found.settings.devices) == count


class Copying(StubEngine):
    """Keeps a whole copy on each GPU."""

    def splits(self, variant: Variant, gpus: tuple[Gpu, ...], links: tuple[Link, ...]) -> tuple[Split, ...]:
        return (Split(data=len(gpus), because="copies"),)


def test_copies_share_the_slots() -> None:
    copying = Copying("vllm", "gpu", "safetensors")
    alone = way(model(kv=WIDE_KV), leaving(40 * MEAN_TOKENS * WIDE_KV), engine=copying).settings
    free = leaving(40 * MEAN_TOKENS * WIDE_KV).now.gpus[0].memory_free_bytes
    two = box(gpus=tuple(gpu(index, total_bytes=100 * GB, free_bytes=free) for index in range(2)))
    both = way(model(kv=WIDE_KV), two, engine=copying).settings
    assert (alone.slots, both.slots) == (32, 64)


def test_on_several_gpus_the_table_is_that_of_one() -> None:
    found = way(model(100 * GB), cards(2))
    assert found.memory[0].bytes == 50 * GB
    # 0.92 of 80 GB are 920 whole steps.
    assert found.taken == dict.fromkeys((0, 1), 73_600_000_000 + CONTEXT_BYTES)


def test_what_a_modest_way_keeps_from_others_is_whole_steps_and_cudas_context() -> None:
    found = way(hardware=cards(2), taken={0: 40 * GB}, modest=True)
    step = 80 * GB // STEPS
    assert set(found.taken) == {1}
    assert 0 <= found.taken[1] - CONTEXT_BYTES - found.need_bytes < step
    assert (found.taken[1] - CONTEXT_BYTES) % step == 0


def test_a_context_that_fits_is_not_missed_because_the_models_own_is_no_power_of_two() -> None:
    """40960 does not fit, 32768 does, and that is all that was wanted."""
    found = way(model(kv=WIDE_KV, context=40960), leaving(36000 * WIDE_KV))
    assert found.settings.context_tokens == 32768
    assert not [limit for limit in found.limits if "context" in limit]


@pytest.mark.parametrize(
    ("window", "room_tokens", "context"),
    [
        (131072, 131072, 131072),
        (131072, 130_000, 65536),
        (100_000, 60_000, 50_000),
        (100_000, 49_000, 32768),
        (100_000, 32_000, 16384),
        (40_000, 39_000, 32768),
        (20_000, 19_000, 10_000),
        (20_000, 2600, 2500),
    ],
)
def test_contexts_are_halvings_of_the_models_own_down_to_the_wanted_one_and_then_of_that(
    window: int, room_tokens: int, context: int
) -> None:
    """A step of the share is 382 tokens here."""
    found = way(model(kv=WIDE_KV, context=window), leaving(room_tokens * WIDE_KV))
    assert found.settings.context_tokens == context


def test_memory_that_others_hold_lowers_the_share() -> None:
    shared = box(gpus=(gpu(total_bytes=100 * GB, free_bytes=50 * GB),))
    assert way(hardware=shared).settings.gpu_memory_share == 0.492


def test_what_other_models_of_the_plan_hold_lowers_it_too() -> None:
    found = way(taken={0: 40 * GB})
    assert found.settings.gpu_memory_share == 0.49
    assert way(hardware=cards(2), chosen=model(kv=512), taken={0: 40 * GB}).settings.devices == (1,)


def test_unknown_memory_of_the_gpus_is_refused_without_a_guess() -> None:
    blind = box(gpus=(Card(msgspec.structs.replace(gpu().gpu, memory_total_bytes=None), gpu().reading),))
    refused = refusal(hardware=blind)
    assert "not known" in refused.reason
    assert refused.fix is None


class TestUnknownCache:
    """Nobody can say how large it is: no more is promised than is wanted."""

    def test_it_is_a_limit_and_the_engine_sizes_it(self) -> None:
        found = way(model(kv=None, context=131072))
        assert found.settings.kv_cache_bytes is None
        assert found.kv_tokens is None
        assert found.limits == ("the size of its KV cache is not known",)

    def test_no_more_than_the_wanted_context_and_few_slots(self) -> None:
        settings = way(model(kv=None, context=131072)).settings
        assert (settings.context_tokens, settings.slots) == (32768, 8)

    def test_a_part_of_the_device_is_kept_free_for_it(self) -> None:
        assert isinstance(best(model(66 * GB, kv=None)), Way)
        refused = refusal(model(67 * GB, kv=None))
        assert refused.fix is not None
        assert isinstance(
            best(model(67 * GB, kv=None), cards(refused.fix.gpus or 0, refused.fix.memory_bytes or 0)), Way
        )

    def test_a_recipe_for_this_generation_says_more(self) -> None:
        recipe = Override(generation="hopper", context=65536, slots=32)
        other = Override(generation="blackwell", context=1024, slots=1)
        chosen = model(kv=None, context=131072)
        facts = msgspec.structs.replace(chosen.facts, overrides=(other, recipe))
        settings = way(msgspec.structs.replace(chosen, facts=facts)).settings
        assert (settings.context_tokens, settings.slots) == (65536, 32)

    def test_a_recipe_decides_nothing_where_the_cache_is_known(self) -> None:
        recipe = Override(generation="hopper", context=2048, slots=1)
        chosen = model()
        settings = way(
            msgspec.structs.replace(chosen, facts=msgspec.structs.replace(chosen.facts, overrides=(recipe,)))
        ).settings
        assert (settings.context_tokens, settings.slots) == (32768, 256)

    def test_the_users_words_stand(self) -> None:
        settings = way(model(kv=None, context=131072), context=131072, slots=64).settings
        assert (settings.context_tokens, settings.slots) == (131072, 64)


class TestRefused:
    def test_more_of_the_same_gpus_are_what_it_would_take(self) -> None:
        refused = refusal(model(400 * GB), cards(2))
        assert "on each of 2 GPUs, and 73.6 GB can be taken" in refused.reason
        assert refused.fix == Fix(memory_bytes=80 * GB, gpus=8)
        assert refused.change.startswith("8 GPUs with 80.0 GB free on each")
        assert isinstance(best(model(400 * GB), cards(8)), Way)

    def test_one_gpu_is_told_how_many_there_would_have_to_be(self) -> None:
        refused = refusal(model(100 * GB), cards(1))
        assert "on each of 1 GPU, and" in refused.reason
        assert "other models" not in refused.reason
        assert refused.fix == Fix(memory_bytes=80 * GB, gpus=2)
        assert refused.change.startswith("2 GPUs with 80.0 GB free on each")
        assert isinstance(best(model(100 * GB), cards(2)), Way)

    def test_or_larger_ones_where_eight_are_too_few(self) -> None:
        refused = refusal(model(1000 * GB), cards(2))
        assert refused.fix is not None
        assert refused.fix.gpus == 2
        assert isinstance(best(model(1000 * GB), cards(2, refused.fix.memory_bytes or 0)), Way)

    def test_or_these_where_others_use_them(self) -> None:
        busy = box(gpus=(gpu(free_bytes=10 * GB),))
        refused = refusal(hardware=busy)
        assert refused.fix is not None
        assert refused.fix.gpus == 1
        free = refused.fix.memory_bytes or 0
        assert free < 80 * GB
        assert isinstance(best(hardware=box(gpus=(gpu(free_bytes=free),))), Way)

    def test_less_of_what_was_insisted_on_is_offered(self) -> None:
        wide = model(kv=WIDE_KV, context=65536)
        assert refusal(wide, leaving(40000 * WIDE_KV), context=65536).fix == Fix(context=32768)
        refused = refusal(wide, leaving(20 * MEAN_TOKENS * WIDE_KV), slots=64)
        assert refused.fix == Fix(slots=32)
        assert refused.change == "slots = 32"
        assert refusal(wide, leaving(20 * MEAN_TOKENS * WIDE_KV), slots=64, context=2048).fix == Fix(slots=32)

    def test_a_fix_counts_what_other_models_hold(self) -> None:
        taken = {0: 70 * GB}
        refused = refusal(model(70 * GB), taken=taken)
        assert refused.reason.endswith("can be taken beside the 70.0 GB of other models")
        assert refused.fix is not None
        assert isinstance(best(model(70 * GB), cards(1, refused.fix.memory_bytes or 0), taken=taken), Way)

    @given(
        size=st.integers(GB, 200 * GB),
        layers=st.none() | st.integers(1, 500),
        total_bytes=st.sampled_from([16, 24, 80, 141]),
        count=st.sampled_from([1, 2, 4]),
        used=st.floats(0, 1),
        context=st.none() | st.integers(1, 100_000),
        slots=st.none() | st.integers(1, 64),
    )
    def test_a_fix_works_and_what_is_offered_fits(
        self,
        *,
        size: int,
        layers: int | None,
        total_bytes: int,
        count: int,
        used: float,
        context: int | None,
        slots: int | None,
    ) -> None:
        chosen = model(size, kv=None if layers is None else layers * 512)
        memory = total_bytes * GB
        hardware = box(
            gpus=tuple(gpu(index, total_bytes=memory, free_bytes=int(memory * used)) for index in range(count))
        )
        found = best(chosen, hardware, context=context, slots=slots)
        if isinstance(found, Way):
            assert found.room_bytes is not None
            assert total(found.memory) <= found.room_bytes <= memory * used
            return
        fix = found.fix
        assert fix is not None
        if fix.memory_bytes is not None:
            free, larger = fix.memory_bytes, max(memory, fix.memory_bytes)
            hardware = box(
                gpus=tuple(gpu(index, total_bytes=larger, free_bytes=free) for index in range(fix.gpus or 0))
            )
        again = best(chosen, hardware, context=fix.context or context, slots=fix.slots or slots)
        assert isinstance(again, Way)


def test_more_than_was_predicted_is_counted_and_less_is_not() -> None:
    chosen, hardware = model(), cards(1)
    more = seen(chosen, VLLM_GPU, hardware, predicted=Figures(peak_bytes=3 * GB), peak_bytes=5 * GB)
    found = way(chosen, hardware, known=more)
    assert found.memory[-1].bytes == 2 * GB
    assert found.settings.kv_cache_bytes == 73_600_000_000 - 16 * GB - ENGINE_BYTES - 2 * GB
    less = seen(chosen, VLLM_GPU, hardware, predicted=Figures(peak_bytes=3 * GB), peak_bytes=GB)
    assert way(chosen, hardware, known=less).memory == way(chosen, hardware).memory


def test_the_real_adapter_is_given_one_slice_at_most() -> None:
    """A process sees one MIG slice, whatever it is given."""
    slices = tuple(
        Card(msgspec.structs.replace(gpu(index, total_bytes=40 * GB).gpu, slice_of=0), gpu(index).reading)
        for index in (1, 2)
    )
    assert len(way(hardware=box(gpus=slices), engine=VllmGpu()).settings.devices) == 1
