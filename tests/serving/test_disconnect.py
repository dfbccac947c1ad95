"""A client that leaves frees what it held: its place in line, its slot, the engine's work."""

from __future__ import annotations

import asyncio
from pathlib import Path

from serving.visitor import Limits
from tests.serving.rig import LEAVES_WITHIN_S, Conversation, Rig, play


async def freed(rig: Rig) -> None:
    await rig.engine_reaches(LEAVES_WITHIN_S, active=0, aborted=1)
    await rig.until(lambda: rig.entry.running == rig.entry.queued == 0, LEAVES_WITHIN_S)
    assert (await rig.ask()).status == 200
    assert 'ownweights_requests_total{model="chat",status="499"} 1.0' in await rig.metrics()


async def read_chunks(conversation: Conversation, count: int) -> None:
    await conversation.head()
    for _ in range(count):
        await conversation.chunk()


def test_in_line(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        await rig.say(script="hold=true")
        await rig.engine_reaches(active=1)
        waiting = await rig.say()
        await rig.until(lambda: rig.entry.queued == 1)
        await waiting.leave()
        await rig.until(lambda: rig.entry.queued == 0, LEAVES_WITHIN_S)
        assert rig.entry.running == 1
        stats = await rig.stats()
        assert (stats["active"], stats["done"]) == (1, 0)

    play(scene, tmp_path, slots=1)


def test_before_the_first_byte_of_a_stream(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        conversation = await rig.say(script="hold=true", stream=True)
        await rig.engine_reaches(active=1)
        await conversation.leave()
        await freed(rig)

    play(scene, tmp_path, slots=1)


def test_before_a_whole_answer(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        conversation = await rig.say(script="interval_s=60")
        await rig.engine_reaches(active=1)
        await conversation.leave()
        await freed(rig)

    play(scene, tmp_path, slots=1)


def test_while_a_whole_answer_is_put_together(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        conversation = await rig.say(script="chunks=100000 interval_s=0.005")
        await rig.until(lambda: rig.entry.heard_s is not None)
        assert (await rig.stats())["sent_bytes"] > 0  # by a stream
        await conversation.leave()
        await freed(rig)

    play(scene, tmp_path, slots=1, cancels_whole_answers=False)


def test_in_a_flowing_stream(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        conversation = await rig.say(script="chunks=100000 interval_s=0.005", stream=True)
        await read_chunks(conversation, 3)
        await conversation.leave()
        await freed(rig)
        # What was delivered is counted, and marked as counted by us.
        (line,) = [line for line in await rig.metrics() if 'source="events"' in line]
        assert float(line.split()[-1]) >= 3

    play(scene, tmp_path, slots=1)


def test_in_a_silent_stream(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        conversation = await rig.say(script="stall_after=2", stream=True)
        await read_chunks(conversation, 1)
        await conversation.leave()
        await freed(rig)

    play(scene, tmp_path, slots=1)


def test_half_closed_is_gone(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        conversation = await rig.say(script="hold=true")
        await rig.engine_reaches(active=1)
        conversation.writer.write_eof()
        await freed(rig)

    play(scene, tmp_path, slots=1)


def test_many_at_once(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        scripts = ["hold=true", "stall_after=1", "chunks=100000 interval_s=0.01"]
        conversations = [await rig.say(script=scripts[n % 3], stream=True) for n in range(60)]
        await rig.until(lambda: rig.entry.running == 30 and rig.entry.queued == 30)
        await rig.engine_reaches(active=30)
        for conversation in conversations:
            await conversation.leave()
        await rig.until(lambda: rig.entry.running == rig.entry.queued == 0, LEAVES_WITHIN_S)
        await rig.engine_reaches(LEAVES_WITHIN_S, active=0)

    play(scene, tmp_path, slots=30)


def test_a_client_that_stops_reading_stops_the_engine_and_then_loses_its_slot(tmp_path: Path) -> None:
    """128 MB are to be sent; buffers on the way hold a fraction, and the write deadline ends it."""

    async def scene(rig: Rig) -> None:
        await rig.say(script="chunks=2000 pad_bytes=65536", stream=True)
        before, sent = -1, 0
        while sent != before or sent == 0:
            await asyncio.sleep(0.1)
            before, sent = sent, (await rig.stats())["sent_bytes"]
        assert sent < 32 * 1024 * 1024
        await freed(rig)

    play(scene, tmp_path, slots=1, limits=Limits(write_s=0.7))
