"""Whole answers from an engine that is asked for streams: what clients get is what they would have got without."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest

from serving.upstream import Patience
from tests.serving.rig import CHAT, Rig, play

COMPLETION, EMBEDDINGS = "/v1/completions", "/v1/embeddings"


def assembled(scene: Callable[[Rig], Coroutine[Any, Any, None]], folder: Path, **options: Any) -> None:
    play(scene, folder, cancels_whole_answers=False, **options)


async def was_asked_for_a_stream(rig: Rig) -> bool:
    return json.loads((await rig.stats())["body"]).get("stream") is True


@pytest.mark.parametrize("script", ["", "split=true", "chunks=0", "usage=false", "done=2"])
@pytest.mark.parametrize("path", [CHAT, COMPLETION])
def test_same_answer(tmp_path: Path, path: str, script: str) -> None:
    async def scene(rig: Rig) -> None:
        answer = await rig.ask(path, script)
        assert await was_asked_for_a_stream(rig)
        rig.entry.served = msgspec.structs.replace(rig.entry.served, cancels_whole_answers=True)
        own = await rig.ask(path, script)
        assert not await was_asked_for_a_stream(rig)
        assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
        assert {name: value for name, value in answer.json.items() if name != "timings"} == own.json

    assembled(scene, tmp_path)


def test_what_a_stream_does_not_tell_is_asked_for_in_one_piece(tmp_path: Path) -> None:
    """Before the request where that is known, after the stream where it shows only then."""

    async def scene(rig: Rig) -> None:
        for path, fields in (
            (CHAT, {"logprobs": True}),
            (CHAT, {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}),
            (EMBEDDINGS, {}),
        ):
            assert (await rig.ask(path, **fields)).status == 200
            assert not await was_asked_for_a_stream(rig)
        assert (await rig.stats())["sent_bytes"] == 0
        counted = 3 * 4
        answer = await rig.ask(script="chunks=3 kept=1")
        assert answer.json["choices"][0]["message"]["content"] == "t1 t2 t3 "
        assert answer.json["usage"]["completion_tokens"] == 3
        assert (await rig.stats())["sent_bytes"] > 0
        assert not await was_asked_for_a_stream(rig)
        (line,) = [line for line in await rig.metrics() if 'kind="completion"' in line]
        assert float(line.split()[-1]) == counted + 3

    assembled(scene, tmp_path)


@pytest.mark.parametrize(
    ("script", "status", "code"),
    [
        ("chunks=2 done=0", 503, "engine_died"),
        ("chunks=2 finish=false", 503, "engine_died"),
        ("cut_after=2", 503, "engine_died"),
        ("error_after=2", 502, "engine_failed"),
        ("line_bytes=67108864", 502, "engine_nonsense"),
        ("stall_after=2", 504, "engine_timeout"),
        ("hold=true", 504, "engine_timeout"),
        ("drops=2", 503, "engine_died"),
        ("answer=html", 502, "engine_nonsense"),
        ("answer=llamacpp-overflow", 400, "context_length_exceeded"),
    ],
)
def test_a_stream_that_is_not_whole_is_an_error(tmp_path: Path, script: str, status: int, code: str) -> None:
    async def scene(rig: Rig) -> None:
        answer = await rig.ask(script=script)
        assert (answer.status, answer.error["code"]) == (status, code)
        assert f'ownweights_requests_total{{model="chat",status="{status}"}} 1.0' in await rig.metrics()
        assert (await rig.ask()).status == 200

    assembled(scene, tmp_path, patience=Patience(first_byte_s=0.5, idle_s=0.5))


def test_killed_in_the_middle(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        answer = await rig.ask(script="die_after=2")
        assert (answer.status, answer.error["code"]) == (503, "engine_died")

    assembled(scene, tmp_path, mortal=True)


def test_dropped_before_the_first_byte_is_asked_again(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        assert (await rig.ask(script="drops=1")).json["usage"]["completion_tokens"] == 4

    assembled(scene, tmp_path)


def test_the_first_event_is_the_first_byte(tmp_path: Path) -> None:
    async def scene(rig: Rig) -> None:
        since_s = time.monotonic()
        answer = await rig.ask(script="chunks=4 interval_s=0.1")
        age_ms = 1000 * (time.monotonic() - since_s)
        assert 100 <= float(answer.headers["x-ownweights-ttft-ms"]) <= age_ms - 300
        assert 'ownweights_tokens_total{kind="completion",model="chat",source="engine"} 4.0' in await rig.metrics()

    assembled(scene, tmp_path)
