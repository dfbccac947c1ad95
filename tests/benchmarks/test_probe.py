from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec
import pytest

from benchmarks.client import Client, Endpoint, connect
from benchmarks.mock import Ask, Reply, ending, event, serving, steady, token
from benchmarks.probe import Entry, choose_model, describe, mode_of, probe
from benchmarks.results import Probe
from deploy.errors import EngineError, UserError
from tests.benchmarks.streams import WORKLOAD

RUN = "0123abcd" * 4
T = TypeVar("T")


def against(
    answer: Callable[[Ask], Reply], ask: Callable[[Client], Awaitable[T]], models: tuple[str, ...] = ("mock",)
) -> T:
    async def run() -> T:
        async with serving(answer, models=models) as base_url, connect(Endpoint(base_url=base_url)) as client:
            return await ask(client)

    return asyncio.run(run())


def probed(answer: Callable[[Ask], Reply]) -> Probe:
    return against(answer, lambda client: probe(client, "mock", WORKLOAD, RUN))


def test_a_server_that_goes_on_to_the_full_length_is_measured_for_capacity() -> None:
    found = probed(steady)
    assert found.ignores_eos
    assert mode_of(found) == "capacity"
    assert found.request_ms > 0


def stops_early(ask: Ask) -> Reply:
    return Reply(packets=((0.0, token() + ending(1, finish_reason="stop")),))


def test_a_server_that_stops_by_itself_is_measured_for_behaviour() -> None:
    found = probed(stops_early)
    assert not found.ignores_eos
    assert mode_of(found) == "behaviour"


def test_a_server_that_refuses_ignore_eos_is_measured_for_behaviour() -> None:
    def refuses(ask: Ask) -> Reply:
        if ask.max_tokens == 32:
            return Reply(status=400, packets=((0.0, b"unknown parameter"),))
        return steady(ask)

    assert not probed(refuses).ignores_eos


def test_what_every_request_has_from_the_cache_is_the_template() -> None:
    # The first has nothing to find; a word asked in an earlier run is found whole and must not count.
    cached = iter([0, 29, 24])

    def caching(ask: Ask) -> Reply:
        counted = {"prompt_tokens": 30, "completion_tokens": 1}
        counted["prompt_tokens_details"] = {"cached_tokens": next(cached, 24)}  # type: ignore[assignment]
        return Reply(packets=((0.0, token() + event({"usage": counted}) + b"data: [DONE]\n\n"),))

    assert probed(caching).template_tokens_cached == 24


def test_a_server_that_does_not_tell_its_cache_leaves_it_unknown() -> None:
    assert probed(steady).template_tokens_cached is None


@pytest.mark.parametrize(("status", "error"), [(401, UserError), (400, UserError), (500, EngineError)])
def test_a_server_that_refuses_every_request_is_no_endpoint(status: int, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"HTTP {status}: because"):
        probed(lambda _: Reply(status=status, packets=((0.0, b"because"),)))


def test_the_only_model_is_taken_and_of_several_one_must_be_named() -> None:
    def choose(models: tuple[str, ...], wanted: str | None = None) -> Entry:
        return against(steady, lambda client: choose_model(client, wanted, "http://x/v1"), models)

    assert choose(("one",)).id == "one"
    assert choose(("one", "two"), "two").id == "two"
    with pytest.raises(UserError, match="one, two: which one"):
        choose(("one", "two"))
    with pytest.raises(UserError) as caught:
        choose(("one", "two"), "three")
    assert "one, two" in (caught.value.hint or "")
    with pytest.raises(UserError, match="no model"):
        choose(())


def test_nothing_there_is_one_clear_error() -> None:
    async def ask() -> None:
        async with connect(Endpoint(base_url="http://127.0.0.1:9/v1")) as client:
            await choose_model(client, None, "http://127.0.0.1:9/v1")

    with pytest.raises(UserError) as caught:
        asyncio.run(ask())
    assert (caught.value.where, caught.value.hint) == ("http://127.0.0.1:9/v1", "make deploy, or check --url")


def test_receipts_outweigh_the_list_of_models_and_unknown_stays_none() -> None:
    entry = Entry(id="chat", revision="of the list", max_model_len=4096)
    receipts = {"revision": "abc", "engine": "llamacpp 2026.10", "lock": "0123"}
    told = describe(entry, receipts, "http://x/v1", None)
    assert (told.revision, told.engine, told.engine_version, told.lock) == ("abc", "llamacpp", "2026.10", "0123")
    assert told.context_tokens == 4096
    silent = describe(Entry(id="chat"), {}, "http://x/v1", None)
    assert msgspec.to_builtins(silent) == {
        "url": "http://x/v1",
        "model": "chat",
        **dict.fromkeys(("revision", "engine", "engine_version", "lock", "context_tokens", "slots", "hardware")),
    }
