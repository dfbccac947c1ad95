"""The hot path over real sockets: what clients get, and what the engine sees."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest

from serving.board import State
from serving.visitor import Limits
from tests.serving.rig import CHAT, Rig, body, play, post, request

PATHS = [CHAT, "/v1/completions", "/v1/embeddings"]
RECEIPTS = {"model": "chat", "revision": "r1", "engine": "fake 1", "lock": "0123456789ab"}


@pytest.mark.parametrize("path", PATHS)
def test_whole_answer(tmp_path: Path, path: str) -> None:
    async def scene(rig: Rig) -> None:
        answer = await rig.ask(path)
        assert answer.status == 200
        assert answer.headers["content-type"] == "application/json"
        assert answer.json["model"] == "chat"
        assert answer.json["usage"]["prompt_tokens"] == 7

    play(scene, tmp_path)


@pytest.mark.parametrize("path", PATHS[:2])
@pytest.mark.parametrize("split", ["false", "true"])
def test_stream(tmp_path: Path, path: str, split: str) -> None:
    async def scene(rig: Rig) -> None:
        answer = await rig.ask(path, f"chunks=3 split={split}", stream=True)
        assert answer.status == 200
        assert answer.headers["content-type"] == "text/event-stream"
        *events, last, done = answer.events
        texts = [choice.get("text") or choice["delta"]["content"] for event in events for choice in event["choices"]]
        assert texts == ["t1 ", "t2 ", "t3 "]
        assert last["choices"][0]["finish_reason"] == "stop"
        assert done == "[DONE]"

    play(scene, tmp_path)


def test_a_stream_is_heard(tmp_path: Path) -> None:
    """What keeps the fleet from probing an engine that plainly works."""

    async def scene(rig: Rig) -> None:
        assert rig.entry.heard_s is None
        before_s = time.monotonic()
        await rig.ask(script="chunks=3", stream=True)
        assert rig.entry.heard_s is not None
        assert before_s <= rig.entry.heard_s <= time.monotonic()

    play(scene, tmp_path)


def test_usage_event_only_for_those_who_asked(tmp_path: Path) -> None:
    """The engine is always asked for it: we count by it."""

    async def scene(rig: Rig) -> None:
        hidden = await rig.ask(stream=True, stream_options={"include_usage": False})
        assert not any(event["choices"] == [] for event in hidden.events[:-1])
        asked = await rig.ask(stream=True, stream_options={"include_usage": True})
        assert asked.events[-2]["usage"]["completion_tokens"] == 4
        assert asked.events[:-2] + asked.events[-1:] == hidden.events
        assert 'ownweights_tokens_total{kind="completion",model="chat",source="engine"} 8.0' in await rig.metrics()

    play(scene, tmp_path)


def test_receipts(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        for fields in ({}, {"stream": True}, {"script": "answer=crash"}):
            headers = (await rig.ask(**fields)).headers
            assert {name: headers[f"x-ownweights-{name}"] for name in RECEIPTS} == RECEIPTS
            assert 0 <= float(headers["x-ownweights-queue-ms"]) < float(headers["x-ownweights-ttft-ms"])
            assert headers["x-request-id"] == (await rig.stats())["headers"]["x-request-id"]
        rig.entry.state = State.STARTING
        headers = (await rig.ask()).headers
        assert {name: headers[f"x-ownweights-{name}"] for name in RECEIPTS} == RECEIPTS

    play(scene, tmp_path)


def test_the_engine_sees_our_headers_and_its_own_name(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        payload = body(model="org/chat")
        extra = "cookie: a=b\r\nx-forwarded-for: 1.2.3.4\r\nx-request-id: mine\r\ntransfer-tag: x\r\n"
        answer = await (await rig.open(post(CHAT, payload, headers=extra))).answer()
        assert answer.json["model"] == "chat"
        seen = await rig.stats()
        assert set(seen["headers"]) == {"host", "content-type", "content-length", "x-request-id", "connection"}
        assert seen["headers"]["x-request-id"] != "mine"
        assert json.loads(seen["body"]) == {**json.loads(payload), "model": "chat"}

    play(scene, tmp_path)


def test_a_body_that_needs_no_change_is_passed_on_byte_by_byte(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        payload = b' {"model" : "chat", "prompt":"h\\u00e9", "temperature": 1.50, "max_tokens": 3 }'
        await (await rig.open(post("/v1/completions", payload))).answer()
        assert (await rig.stats())["body"].encode() == payload

    play(scene, tmp_path)


def test_engine_headers_stay_inside(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        for stream in (False, True):
            headers = (await rig.ask(stream=stream)).headers
            assert not {"server", "set-cookie", "location"} & set(headers)

    play(scene, tmp_path)


def test_chunked_request_bodies_leave_with_their_length(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        payload = body()
        half = len(payload) // 2
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (payload[:half], payload[half:], b""))
        raw = request("POST", CHAT, headers="transfer-encoding: chunked\r\n") + chunks
        assert (await (await rig.open(raw)).answer()).status == 200
        seen = await rig.stats()
        assert seen["headers"]["content-length"] == str(len(payload))
        assert "transfer-encoding" not in seen["headers"]

    play(scene, tmp_path)


def test_one_connection_carries_many_requests(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        conversation = await rig.open()
        for stream in (False, True, False, True):
            for raw in (post(CHAT, body(stream=stream)), request("GET", "/v1/models"), post(CHAT, b"{")):
                conversation.writer.write(raw)
                answer = await conversation.answer()
                assert answer.status == (400 if raw.endswith(b"\r\n\r\n{") else 200)

    play(scene, tmp_path)


def test_unknown_model(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        answer = await rig.ask(model="gpt-9")
        assert answer.status == 404
        assert answer.error["code"] == "model_not_found"
        assert "gpt-9" in answer.error["message"]

    play(scene, tmp_path)


def test_body_over_the_cap(tmp_path: Path) -> None:
    """By its announced length before a byte of it is read, and by count where none is announced."""

    async def scene(rig: Rig) -> None:
        announced = await rig.open(request("POST", CHAT, headers="content-length: 99999999\r\n"))
        assert (await announced.answer()).status == 413
        endless = await rig.open(request("POST", CHAT, headers="transfer-encoding: chunked\r\n"))
        reading = asyncio.create_task(endless.answer())
        chunk = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
        for _ in range(17):
            endless.writer.write(chunk)
        answer = await reading
        assert (answer.status, answer.error["code"]) == (413, "body_too_large")
        assert (await rig.ask()).status == 200

    play(scene, tmp_path)


def test_a_large_body_is_served(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        text = "words, and more words " * 50_000
        assert (await rig.ask("/v1/completions", prompt=text)).status == 200
        assert json.loads((await rig.stats())["body"])["prompt"] == text

    play(scene, tmp_path)


def test_encoded_bodies_are_refused(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        conversation = await rig.open(post(CHAT, b"\x1f\x8b" + bytes(100), headers="content-encoding: gzip\r\n"))
        answer = await conversation.answer()
        assert (answer.status, answer.error["code"]) == (415, "unsupported_encoding")

    play(scene, tmp_path)


def test_a_slow_body_is_given_up(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        conversation = await rig.open(request("POST", CHAT, headers="content-length: 100\r\n") + b'{"m')
        answer = await conversation.answer()
        assert (answer.status, answer.headers["connection"]) == (408, "close")
        assert await conversation.reader.read() == b""

    play(scene, tmp_path, limits=Limits(body_s=0.2))


def test_expect_continue(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        payload = body()
        head = request("POST", CHAT, headers=f"content-length: {len(payload)}\r\nexpect: 100-continue\r\n")
        conversation = await rig.open(head)
        assert await conversation.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        conversation.writer.write(payload)
        assert (await conversation.answer()).status == 200

    play(scene, tmp_path)


def test_no_more_than_its_slots_run_and_the_rest_wait_in_order(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        first = await rig.say(script="stall_after=1", stream=True)
        await rig.engine_reaches(active=1)
        waiting = []
        for number in range(3):
            waiting.append(await rig.say(stream=True, seed=number))
            await rig.until(lambda wanted=number + 1: rig.entry.queued == wanted)
        assert (await rig.stats())["active"] == rig.entry.running == 1
        await first.leave()
        for number, conversation in enumerate(waiting):
            answer = await conversation.answer()
            assert answer.events[-1] == "[DONE]"
            assert float(answer.headers["x-ownweights-queue-ms"]) > 0, number
        await rig.until(lambda: rig.entry.running == rig.entry.queued == 0)

    play(scene, tmp_path, slots=1)


def test_a_full_line_is_said_at_once(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        for _ in range(3):
            await rig.say(script="hold=true")
        await rig.until(lambda: rig.entry.running == 1 and rig.entry.queued == 2)
        answer = await rig.ask()
        assert (answer.status, answer.error["code"]) == (429, "queue_full")
        assert int(answer.headers["retry-after"]) > 0
        assert 'ownweights_requests_total{model="chat",status="429"} 1.0' in await rig.metrics()

    play(scene, tmp_path, slots=1, limits=Limits(queue_places=2))


@pytest.mark.parametrize("state", [state for state in State if state is not State.READY])
def test_no_engine_no_waiting(tmp_path: Path, state: State) -> None:
    async def scene(rig: Rig) -> None:
        rig.entry.state = state
        answer = await rig.ask()
        assert (answer.status, answer.error["code"]) == (503, "model_not_ready")
        assert int(answer.headers["retry-after"]) > 0
        assert state.value in answer.error["message"]

    play(scene, tmp_path)


def test_those_in_line_are_told_when_the_engine_is_lost(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        first = await rig.say(script="hold=true")
        second = await rig.say()
        await rig.until(lambda: rig.entry.queued == 1)
        rig.entry.state = State.FAILED
        await first.leave()
        assert (await second.answer()).status == 503

    play(scene, tmp_path, slots=1)


def test_shutdown_ends_streams_with_an_error_event(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        conversation = await rig.say(script="stall_after=2", stream=True)
        await conversation.head()
        while b"t2" not in await conversation.chunk():
            pass
        assert rig.server
        rig.server.should_exit = True
        event = await conversation.chunk()
        assert json.loads(event.removeprefix(b"data: "))["error"]["code"] == "shutting_down"
        assert await conversation.chunk() == b""
        await rig.engine_reaches(active=0, aborted=1)

    play(scene, tmp_path)
