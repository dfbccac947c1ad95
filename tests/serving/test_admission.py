"""Slots and the line before them."""

from __future__ import annotations

import asyncio

import pytest

from serving.admission import Admission
from serving.board import Entry, Served
from serving.refusal import Refusal


def entry(slots: int) -> Entry:
    served = Served(
        name="chat", socket="e.sock", revision="r", engine="e", lock="0", context_tokens=1, slots=slots, created=0
    )
    return Entry(served)


async def settle() -> None:
    """Lets every task go as far as it can."""
    for _ in range(5):
        await asyncio.sleep(0)


def counts(found: Entry) -> tuple[int, int]:
    return found.running, found.queued


def test_first_come_first_served() -> None:
    async def scene() -> None:
        admission, model, order = Admission(), entry(2), []

        async def visit(number: int) -> None:
            await admission.enter(model)
            order.append(number)

        tasks = [asyncio.create_task(visit(number)) for number in range(5)]
        await settle()
        assert (order, counts(model)) == ([0, 1], (2, 3))
        for served in range(3, 6):
            admission.leave(model)
            await settle()
            assert (order, counts(model)) == (list(range(served)), (2, 5 - served))
        for left in (1, 0):
            admission.leave(model)
            assert counts(model) == (left, 0)
        await asyncio.gather(*tasks)

    asyncio.run(scene())


def test_a_newcomer_does_not_overtake_the_one_just_called_up() -> None:
    async def scene() -> None:
        admission, model = Admission(), entry(1)
        await admission.enter(model)
        waiting = asyncio.create_task(admission.enter(model))
        await settle()
        admission.leave(model)
        newcomer = asyncio.create_task(admission.enter(model))
        await settle()
        assert waiting.done()
        assert not newcomer.done()
        assert counts(model) == (1, 1)
        newcomer.cancel()

    asyncio.run(scene())


def test_full() -> None:
    async def scene() -> None:
        admission, model = Admission(places=1), entry(1)
        await admission.enter(model)
        waiting = asyncio.create_task(admission.enter(model))
        await settle()
        with pytest.raises(Refusal) as caught:
            await admission.enter(model)
        assert (caught.value.status, caught.value.code) == (429, "queue_full")
        assert counts(model) == (1, 1)
        waiting.cancel()

    asyncio.run(scene())


@pytest.mark.parametrize("called_up", [False, True])
def test_leaving_the_line(called_up: bool) -> None:
    """Also in the moment of being called up: the slot then goes on to the next."""

    async def scene() -> None:
        admission, model = Admission(), entry(1)
        await admission.enter(model)
        impatient, patient = (asyncio.create_task(admission.enter(model)) for _ in range(2))
        await settle()
        if called_up:
            admission.leave(model)
        impatient.cancel()
        await settle()
        assert impatient.cancelled()
        assert patient.done() == called_up
        admission.leave(model)
        await settle()
        assert patient.done()
        assert counts(model) == ((0, 0) if called_up else (1, 0))

    asyncio.run(scene())


def test_models_do_not_wait_for_each_other() -> None:
    async def scene() -> None:
        admission, one, other = Admission(), entry(1), entry(1)
        other.served = Served(**{**{f: getattr(one.served, f) for f in one.served.__struct_fields__}, "name": "b"})
        await admission.enter(one)
        async with asyncio.timeout(5):
            await admission.enter(other)

    asyncio.run(scene())
