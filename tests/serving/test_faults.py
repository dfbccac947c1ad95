"""Engines that die, lie or fall silent: every request still gets an answer or an error, and never a false whole."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from serving.board import State
from serving.upstream import Patience
from tests.serving.rig import CHAT, Answer, Rig, play, start_engine

SECRETS = (b"Traceback", b"/srv", b"/var/log", b"It works", b"elsewhere", b"fake.py")


def broken(answer: Answer, kind: str, texts: int) -> None:
    """A stream that delivered ``texts`` and then said that it is not whole."""
    assert answer.status == 200
    *events, last = answer.events
    assert [event["choices"][0]["delta"]["content"].strip() for event in events] == [f"t{n + 1}" for n in range(texts)]
    assert set(last) == {"error"}
    assert last["error"]["type"] == kind
    assert b"[DONE]" not in answer.body


def test_killed_in_the_middle_of_a_stream(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        broken(await rig.ask(script="die_after=3", stream=True), "engine_died", 3)
        assert rig.entry.running == 0
        metrics = await rig.metrics()
        assert 'ownweights_requests_total{model="chat",status="503"} 1.0' in metrics
        assert 'ownweights_tokens_total{kind="completion",model="chat",source="events"} 3.0' in metrics

    play(scene, tmp_path, mortal=True)


def test_killed_takes_only_its_own_streams_along(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        other = await rig.say(script="stall_after=1", stream=True)
        await rig.engine_reaches(active=1)
        broken(await rig.ask(script="die_after=2", stream=True), "engine_died", 2)
        broken(await other.answer(), "engine_died", 1)
        assert rig.engine
        await rig.engine.wait()
        after = await rig.ask()
        assert (after.status, after.error["code"]) == (503, "engine_unreachable")
        rig.engine = await start_engine(rig.socket)
        assert (await rig.ask()).status == 200

    play(scene, tmp_path, mortal=True)


def test_killed_before_the_first_byte(tmp_path: Path) -> None:
    """The second try meets nobody, and says so at once."""

    async def scene(rig: Rig) -> None:
        waiting = await rig.say(script="hold=true")
        await rig.engine_reaches(active=1)
        assert rig.engine
        rig.engine.kill()
        answer = await waiting.answer()
        # The kernel may close its connections a moment before the socket that it listens on.
        assert (answer.status, answer.error["code"] in {"engine_unreachable", "engine_died"}) == (503, True)
        assert int(answer.headers["retry-after"]) > 0

    play(scene, tmp_path, mortal=True)


@pytest.mark.parametrize("stream", [False, True])
def test_dropped_before_the_first_byte_is_asked_again_once(tmp_path: Path, stream: bool) -> None:
    async def scene(rig: Rig) -> None:
        once = await rig.ask(script="drops=1", stream=stream)
        assert once.status == 200
        assert once.headers["x-request-id"] == (await rig.stats())["headers"]["x-request-id"]
        twice = await rig.ask(script="drops=2", stream=stream)
        assert (twice.status, twice.error["type"]) == (503, "engine_died")

    play(scene, tmp_path)


def test_dropped_is_not_asked_again_when_the_engine_is_no_longer_ready(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        waiting = await rig.say(script="hold=true")
        await rig.engine_reaches(active=1)
        rig.entry.state = State.DRAINING
        assert rig.engine
        rig.engine.kill()
        assert (await waiting.answer()).error["code"] == "model_not_ready"

    play(scene, tmp_path, mortal=True)


def test_cut_in_the_middle_of_an_answer(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        broken(await rig.ask(script="cut_after=2", stream=True), "engine_died", 2)

    play(scene, tmp_path)


@pytest.mark.parametrize(
    ("script", "kind", "texts"),
    [
        ("chunks=2 done=0", "engine_died", 3),
        ("chunks=2 finish=false", "engine_died", 3),
        ("error_after=2", "engine_error", 2),
        ("line_bytes=67108864", None, 0),
    ],
)
def test_streams_that_are_not_whole(tmp_path: Path, script: str, kind: str | None, texts: int) -> None:
    async def scene(rig: Rig) -> None:
        answer = await rig.ask(script=script, stream=True)
        assert not any(secret in answer.body for secret in SECRETS)
        if kind is None:
            assert (answer.status, answer.error["code"]) == (502, "engine_nonsense")
        else:
            answer.body = answer.body.replace(b'"content":""', f'"content":"t{texts}"'.encode())
            broken(answer, kind, texts)

    play(scene, tmp_path)


def test_done_twice_is_done_once(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        answer = await rig.ask(script="done=2", stream=True)
        assert answer.events.count("[DONE]") == 1

    play(scene, tmp_path)


def test_no_usage_is_no_failure(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        assert (await rig.ask(script="usage=false chunks=3", stream=True)).events[-1] == "[DONE]"
        assert (await rig.ask(script="usage=false")).status == 200
        (line,) = [line for line in await rig.metrics() if line.startswith("ownweights_tokens_total")]
        assert 'source="events"' in line

    play(scene, tmp_path)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("answer", "status", "code"),
    [
        ("html", 502, "engine_nonsense"),
        ("redirect", 502, "engine_nonsense"),
        ("garbage", 502, "engine_nonsense"),
        ("error", 502, None),
        ("crash", 502, "engine_failed"),
        ("llamacpp-overflow", 400, "context_length_exceeded"),
        ("vllm-overflow", 400, "context_length_exceeded"),
    ],
)
def test_wrong_answers(tmp_path: Path, answer: str, status: int, code: str | None, stream: bool) -> None:
    async def scene(rig: Rig) -> None:
        found = await rig.ask(script=f"answer={answer}", stream=stream)
        assert found.status == status
        assert code in (None, found.error["code"])
        assert not any(secret in found.body for secret in SECRETS)
        assert (await rig.ask()).status == 200

    play(scene, tmp_path)


def test_early_hints_are_skipped(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        assert (await rig.ask(script="answer=early")).json["choices"][0]["message"]["content"] == "t1"

    play(scene, tmp_path)


@pytest.mark.parametrize(("script", "texts"), [("stall_after=2", 2), ("hold=true", 0)])
def test_silence_has_a_deadline(tmp_path: Path, script: str, texts: int) -> None:
    async def scene(rig: Rig) -> None:
        answer = await rig.ask(script=script, stream=True)
        if texts:
            broken(answer, "engine_timeout", texts)
        else:
            assert (answer.status, answer.error["code"]) == (504, "engine_timeout")
        await rig.engine_reaches(active=0, aborted=1)

    play(scene, tmp_path, patience=Patience(first_byte_s=0.3, idle_s=0.3))


def test_overload(tmp_path: Path) -> None:
    """Ten times what fits: everybody gets an answer, the excess a 429, and nothing is lost on the way."""

    async def scene(rig: Rig) -> None:
        answers = await asyncio.gather(*(rig.ask(CHAT, "interval_s=0.05") for _ in range(200)))
        statuses = [answer.status for answer in answers]
        assert set(statuses) == {200, 429}
        assert statuses.count(200) >= 66
        assert (await rig.stats())["done"] == statuses.count(200)
        assert rig.entry.running == rig.entry.queued == 0

    play(scene, tmp_path, slots=2)
