from __future__ import annotations

import pytest

from benchmarks.sse import Events

STREAM = b': ping\n\ndata: {"a":1}\n\nevent: x\nid: 7\ndata: two\ndata:lines\r\n\r\ndata: \xc3\xa9\n\ndata: [DONE]\n\n'
PAYLOADS = [b'{"a":1}', b"two\nlines", b"\xc3\xa9", b"[DONE]"]


def test_comments_names_and_ids_are_no_payload() -> None:
    assert Events().feed(STREAM) == PAYLOADS


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_wherever_the_network_cuts_the_events_are_the_same(size: int) -> None:
    events = Events()
    packets = [STREAM[at : at + size] for at in range(0, len(STREAM), size)]
    assert [payload for packet in packets for payload in events.feed(packet)] == PAYLOADS


def test_an_event_is_not_given_before_its_blank_line() -> None:
    events = Events()
    assert events.feed(b"data: half\n") == []
    assert events.feed(b"\n") == [b"half"]


def test_an_empty_data_line_is_an_event_with_empty_data() -> None:
    assert Events().feed(b"data:\n\n") == [b""]
