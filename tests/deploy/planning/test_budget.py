"""How much a device can give: free memory, margins, neighbours of the plan, and which GPUs are taken."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.hardware import GpuReading, Hardware, Link
from deploy.planning import budget
from deploy.planning.budget import RAM
from tests.deploy.boxes import GB, Card, box, gpu


def of(*cards: Card) -> Hardware:
    return box(gpus=cards)


def reserved(total_bytes: int, *, free_bytes: int, used_bytes: int) -> Card:
    """What is neither free nor used is the driver's."""
    card = gpu(total_bytes=total_bytes)
    return Card(card.gpu, GpuReading(index=0, memory_free_bytes=free_bytes, memory_used_bytes=used_bytes))


def test_a_tenth_of_free_ram_is_left_and_other_models_count() -> None:
    assert budget.of_ram(box(free_bytes=10 * GB), {}) == 9 * GB
    assert budget.of_ram(box(free_bytes=10 * GB), {RAM: 2 * GB, 0: 50 * GB}) == 7 * GB


def test_unknown_free_ram_is_unknown_room() -> None:
    assert budget.of_ram(box(free_bytes=None), {RAM: GB}) is None


@pytest.mark.parametrize(
    ("free", "taken", "share"),
    [
        (100 * GB, 0, 0.92),
        (50 * GB, 0, 0.492),
        (100 * GB, 60 * GB, 0.392),
        (10 * GB, 60 * GB, 0.0),
    ],
)
def test_the_share_is_what_is_free_less_cudas_context(free: int, taken: int, share: float) -> None:
    """0.75 GB of it, in whole thousandths."""
    hardware = of(gpu(total_bytes=100 * GB, free_bytes=free))
    assert budget.share(hardware.gpus, hardware, {0: taken} if taken else {}) == share


def test_of_several_gpus_the_fullest_decides() -> None:
    hardware = of(gpu(0, total_bytes=100 * GB), gpu(1, total_bytes=100 * GB, free_bytes=40 * GB))
    assert budget.share(hardware.gpus, hardware, {}) == 0.392
    assert budget.share(hardware.gpus[:1], hardware, {}) == 0.92


def test_unknown_free_memory_of_a_gpu_is_all_of_it_but_what_the_plan_gave_away() -> None:
    hardware = msgspec.structs.replace(of(gpu(total_bytes=100 * GB)), now=box().now)
    assert budget.share(hardware.gpus, hardware, {}) == 0.92
    assert budget.share(hardware.gpus, hardware, {0: 50 * GB}) == 0.492


def test_what_the_driver_keeps_for_itself_is_nobodys() -> None:
    hardware = of(reserved(100 * GB, free_bytes=60 * GB, used_bytes=20 * GB))
    assert budget.own_bytes(hardware.gpus[0], hardware) == 80 * GB
    share = budget.share(hardware.gpus, hardware, {})
    assert share == 0.74
    assert budget.of_gpus(hardware.gpus, share, hardware) == 59_200_000_000


@pytest.mark.parametrize(("free", "used"), [(100 * GB, 30 * GB), (None, 10 * GB), (90 * GB, None)])
def test_readings_that_say_nothing_of_a_reserve_leave_the_total(free: int | None, used: int | None) -> None:
    card = Card(gpu(total_bytes=100 * GB).gpu, GpuReading(index=0, memory_free_bytes=free, memory_used_bytes=used))
    hardware = of(card)
    assert budget.own_bytes(hardware.gpus[0], hardware) == 100 * GB


@given(total=st.integers(8 * GB, 200 * GB), need=st.integers(1, 400 * GB))
def test_the_memory_that_is_said_to_be_needed_is_enough(total: int, need: int) -> None:
    free = budget.needed_of_gpu(total, need)
    hardware = of(gpu(total_bytes=max(total, free), free_bytes=free))
    assert budget.of_gpus(hardware.gpus, budget.share(hardware.gpus, hardware, {}), hardware) >= need


def test_the_emptiest_gpus_are_taken_then_the_joined_ones_then_the_first() -> None:
    hardware = of(gpu(0, free_bytes=40 * GB), gpu(1), gpu(2), gpu(3))
    assert [one.index for one in budget.pick(hardware.gpus, 2, hardware, {})] == [1, 2]
    joined = msgspec.structs.replace(hardware, links=(Link(first=2, second=3, path="nvlink"),))
    assert [one.index for one in budget.pick(joined.gpus, 2, joined, {})] == [2, 3]
    assert [one.index for one in budget.pick(joined.gpus, 2, joined, {3: 70 * GB})] == [1, 2]


NVLINK_PAIRS = tuple(Link(first=one, second=one + 1, path="nvlink") for one in range(0, 16, 2))


@pytest.mark.parametrize(
    ("links", "busy", "count", "found"),
    [
        ((), (), 8, (0, 1, 2, 3, 4, 5, 6, 7)),
        ((Link(first=9, second=10, path="nvlink"),), (), 2, (9, 10)),
        ((Link(first=9, second=10, path="pcie"), Link(first=12, second=11, path="nvlink")), (), 2, (11, 12)),
        (NVLINK_PAIRS, (0,), 2, (2, 3)),
        (NVLINK_PAIRS, (0,), 4, (2, 3, 4, 5)),
        # The neighbours of those that are joined are as free, but joined to nobody.
        (tuple(Link(first=one, second=other, path="nvlink") for one in range(8, 12) for other in range(8, one)), (), 4,
         (8, 9, 10, 11)),
        # The freest, wherever they lie and whatever joins the others.
        (NVLINK_PAIRS, (0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14), 4, (3, 7, 11, 15)),
        # One is short of four: of the busy ones the one that is joined to most of the free.
        ((Link(first=3, second=14, path="nvlink"),), tuple(one for one in range(16) if one not in (3, 7, 11)), 4,
         (3, 7, 11, 14)),
    ],
    ids=["equals", "a pair", "NVLink only", "beside a busy one", "two pairs", "an island", "the freest", "one short"],
)  # fmt: skip
def test_of_sixteen_the_freest_then_neighbours_that_nvlink_joins(
    links: tuple[Link, ...], busy: tuple[int, ...], count: int, found: tuple[int, ...]
) -> None:
    cards = (gpu(index, free_bytes=50 * GB if index in busy else None) for index in range(16))
    hardware = msgspec.structs.replace(of(*cards), links=links)
    assert tuple(one.index for one in budget.pick(hardware.gpus, count, hardware, {})) == found


def test_many_gpus_are_not_tried_in_all_combinations() -> None:
    """Thirty-two of sixty-four can be chosen in 10^18 ways: that would not end."""
    hardware = of(*map(gpu, range(64)))
    assert [one.index for one in budget.pick(hardware.gpus, 32, hardware, {})] == list(range(32))


@given(own=st.integers(8 * GB, 200 * GB), need=st.integers(1, 200 * GB))
def test_what_is_kept_from_others_is_what_is_needed_and_less_than_a_step_more_and_cudas_context(
    own: int, need: int
) -> None:
    kept = budget.held(need, own) - budget.CONTEXT_BYTES
    assert need - 1 <= kept <= need + own / budget.STEPS + 1


@pytest.mark.parametrize("own", [80 * GB, 85_520_809_984, 143_771_000_832, 15_843_721_216])
@pytest.mark.parametrize("steps", [1, 137, 460, 731])
@pytest.mark.parametrize("slack", [0, 1, 2, 12345, 10**7])
def test_what_was_set_aside_is_there_when_the_other_has_taken_all_that_was_left(
    own: int, steps: int, slack: int
) -> None:
    """Also where what is free is whole steps, and nothing is lost to rounding elsewhere."""
    second = budget.held(own * steps // budget.STEPS, own)
    first = own * 150 // budget.STEPS + budget.CONTEXT_BYTES
    hardware = of(gpu(total_bytes=own, free_bytes=min(own, first + second + slack)))
    share = budget.share(hardware.gpus, hardware, {0: second})
    grown = budget.held(budget.of_gpus(hardware.gpus, share, hardware), own)
    left = budget.of_gpus(hardware.gpus, budget.share(hardware.gpus, hardware, {0: grown}), hardware)
    assert left >= own * steps // budget.STEPS


def test_only_gpus_that_are_alike_share_a_model() -> None:
    hardware = of(gpu(0), gpu(1, total_bytes=48 * GB), gpu(2))
    assert [[one.index for one in group] for group in budget.groups(hardware)] == [[0, 2], [1]]


def test_a_split_gpu_is_in_no_group_but_its_slices_are() -> None:
    whole, part = gpu(0), gpu(1, total_bytes=20 * GB)
    parent = Card(msgspec.structs.replace(whole.gpu, mig=True), whole.reading)
    slice_of = Card(msgspec.structs.replace(part.gpu, slice_of=0), part.reading)
    assert [[one.index for one in group] for group in budget.groups(of(parent, slice_of))] == [[1]]
