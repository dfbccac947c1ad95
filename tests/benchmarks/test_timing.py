"""The known-answer streams of other harnesses' mistakes: true TTFT 200 ms, true TPOT 20 ms."""

from __future__ import annotations

import pytest

from benchmarks.timing import Outcome, Record, Recorder
from tests.benchmarks.streams import DONE, MS, delta, played, record, usage


def one_per_chunk(tokens: int = 49) -> list[tuple[float, bytes]]:
    return [(200 + 20 * place, delta(content="word")) for place in range(tokens)]


def ended(events: list[tuple[float, bytes]], tokens: int = 49) -> Record:
    last = events[-1][0]
    return played([*events, (last, usage(7, tokens)), (last, DONE)], end_ms=last + 1)


def test_one_token_per_chunk() -> None:
    found = ended(one_per_chunk())
    assert found.ok
    assert found.ttft_ms == found.ttfa_ms == 200
    assert found.tpot_ms == 20
    assert found.e2el_ms == 200 + 48 * 20
    assert found.gaps_ms == [20.0] * 48


def test_four_tokens_per_chunk_stretch_the_gaps_and_not_the_time_per_token() -> None:
    found = ended([(200, delta(content="w")), *((200 + 80 * turn, delta(content="w w w w")) for turn in range(1, 13))])
    assert found.ttft_ms == 200
    assert found.tpot_ms == 20
    assert found.gaps_ms == [80.0] * 12


def test_tokens_of_the_first_chunk_are_taken_off_where_the_server_counts_as_it_goes() -> None:
    def counting(tokens: int) -> bytes:
        return delta(content="w")[:-1] + b',"usage":{"prompt_tokens":7,"completion_tokens":%d}}' % tokens

    found = ended([(200 + 80 * turn, counting(4 + 4 * turn)) for turn in range(12)], tokens=48)
    assert found.first_tokens == 4
    assert found.tpot_ms == 20


def test_a_role_chunk_at_once_is_no_token() -> None:
    opening = [(3.0, delta(role="assistant", content="")), (4.0, delta(role="assistant", content=None)), (5.0, delta())]
    assert ended([*opening, *one_per_chunk()]).ttft_ms == 200


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_is_tokens_but_no_answer(field: str) -> None:
    found = ended([(200 + 20 * place, delta(**{field: "hm"})) for place in range(49)])
    assert (found.ttft_ms, found.tpot_ms, found.ttfa_ms) == (200, 20, None)
    assert ended([(100, delta(**{field: "hm"})), *one_per_chunk()]).ttfa_ms == 200


def test_arguments_of_a_tool_call_are_tokens_and_its_name_alone_is_not() -> None:
    named = delta(tool_calls=[{"index": 0, "function": {"name": "f", "arguments": ""}}])
    argued = delta(tool_calls=[{"index": 0, "function": {"arguments": "{}"}}])
    assert ended([(10, named), (200, argued)], tokens=2).ttft_ms == 200


def test_text_of_the_completions_api_is_tokens() -> None:
    assert ended([(200, b'{"choices":[{"index":0,"text":"w"}]}')], tokens=1).ttft_ms == 200


def test_time_per_token_is_undefined_for_one_token_and_for_one_chunk() -> None:
    assert ended(one_per_chunk(1), tokens=1).tpot_ms is None
    assert ended(one_per_chunk(1), tokens=40).tpot_ms is None


def test_without_usage_there_are_latencies_and_no_counts() -> None:
    found = played([*one_per_chunk(), (1200, DONE)], end_ms=1200)
    assert found.ok
    assert (found.ttft_ms, found.usage, found.tpot_ms, found.tokens_between(0, 10**12)) == (200, None, None, None)


def test_zero_usage_on_every_chunk_is_not_the_count() -> None:
    found = played([(200, delta(content="w")), (220, usage(7, 2)), (221, usage(0, 0)), (222, DONE)], end_ms=223)
    assert found.usage is not None
    assert found.usage.completion_tokens == 2


@pytest.mark.parametrize(
    ("events", "outcome"),
    [
        ([(200, delta(content="w")), (210, usage(7, 1))], Outcome.CUT),
        ([(200, usage(7, 1)), (210, DONE)], Outcome.EMPTY),
        ([(200, delta(content="w")), (210, b'{"error":{"message":"no"}}'), (211, DONE)], Outcome.ERROR_EVENT),
        ([(200, delta(content="w")), (210, b"{nonsense"), (211, DONE)], Outcome.MALFORMED),
        ([(200, b'{"choices":[{"delta":{"content":7}}]}'), (211, DONE)], Outcome.MALFORMED),
    ],
)
def test_what_ends_badly_is_a_failure(events: list[tuple[float, bytes]], outcome: Outcome) -> None:
    found = played(events, end_ms=300)
    assert found.outcome is outcome
    assert not found.ok


def test_a_failure_of_the_transport_outweighs_what_came_before() -> None:
    recorder = Recorder(t_sched_ns=0, t_send_ns=5 * MS)
    recorder.feed(10 * MS, DONE)
    found = recorder.close(20 * MS, Outcome.TIMEOUT, "silence")
    assert (found.outcome, found.detail, found.dispatch_ms) == (Outcome.TIMEOUT, "silence", 5)


def test_tokens_are_credited_where_their_chunks_came() -> None:
    found = record(0, 100, chunks_ms=(10, 20, 30, 40, 50), tokens=9)
    assert found.tokens_between(0, 100 * MS) == 9
    assert found.tokens_between(0, 10 * MS) == 1
    assert found.tokens_between(10 * MS, 30 * MS) == 4
    assert found.tokens_between(50 * MS, 100 * MS) == 0
    halves = [found.tokens_between(a * MS, b * MS) for a, b in ((0, 25), (25, 100))]
    assert sum(part or 0 for part in halves) == 9
