"""Bodies that are not one plain JSON object: refused before anything is decided by them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving import document
from serving.refusal import Refusal
from tests.serving.orders import JSON, MESSAGES, chat, outcome, refused

HOSTILE = {
    "empty": b"",
    "blank": b" \n",
    "open": b"{",
    "array": b"[]",
    "string": b'"chat"',
    "null": b"null",
    "two": b"{}{}",
    "bom": b"\xef\xbb\xbf" + chat(),
    "utf-16": chat().decode().encode("utf-16"),
    "utf-32": chat().decode().encode("utf-32"),
    "latin-1": chat(user="\u00e9").replace(b"\\u00e9", b"\xe9"),
    "overlong": chat(user="x").replace(b'"x"', b'"\xc0\xaf"'),
    "raw surrogate": chat(user="x").replace(b'"x"', b'"\xed\xa0\x80"'),
    "lone surrogate": chat(user="x").replace(b'"x"', b'"\\ud800"'),
    "surrogate as a name": chat().replace(b'"hello"', b'[{"\\udc00": 1}]'),
    "control character": chat(user="x").replace(b'"x"', b'"\x00"'),
    "duplicate model": b'{"model": "chat", "model": "other", "messages": []}',
    "duplicate by escape": b'{"model": "chat", "mode\\u006c": "other", "messages": []}',
    "duplicate inside": chat().replace(b'"role"', b'"role": "system", "role"'),
    "NaN": chat(temperature=0).replace(b": 0", b": NaN"),
    "Infinity": chat(temperature=0).replace(b": 0", b": -Infinity"),
    "1e400": chat(temperature=0).replace(b": 0", b": 1e400"),
    "5000 digits": chat(seed=1).replace(b": 1", b": " + b"9" * 5000),
    "leading zero": chat(seed=1).replace(b": 1", b": 01"),
    "deep arrays": chat(stop=1).replace(b'"stop": 1', b'"stop": ' + b"[" * 100_000 + b"]" * 100_000),
    "deep objects": chat(stop=1).replace(b'"stop": 1', b'"stop": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "a level too deep": chat(stop=1).replace(b'"stop": 1', b'"stop": ' + b"[" * 64 + b"]" * 64),
    "max_tokens 10^18": chat(max_tokens=10**18),
    "max_tokens -1": chat(max_tokens=-1),
    "max_tokens 0": chat(max_tokens=0),
    'max_tokens "5"': chat(max_tokens="5"),
    "max_tokens true": chat(max_tokens=True),
    "max_completion_tokens {}": chat(max_completion_tokens={}),
    "n 10^6": chat(n=10**6),
    "stream yes": chat(stream="yes"),
    "stream_options []": chat(stream_options=[]),
    "stream_options unknown": chat(stream_options={"include": True}),
    "model number": chat(model=7),
    "model empty": chat(model=""),
    "model long": chat(model="x" * 10_000),
    "no model": b'{"messages": [{"role": "user", "content": "x"}]}',
    "no messages": b'{"model": "chat"}',
    "messages empty": chat(messages=[]),
    "messages string": chat(messages="hello"),
    "messages of strings": chat(messages=["hello"]),
    "messages 10^5": chat(messages=MESSAGES * 100_000),
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_bodies_are_400(body: bytes) -> None:
    refusal = refused(body)
    assert refusal.status == 400
    found = json.loads(refusal.body)["error"]
    assert found["type"] == "invalid_request_error"
    assert len(refusal.body) < 1000


def test_many_values_are_too_large() -> None:
    assert refused(chat(stop=[0] * (document.MAX_MARKS + 1))).status == 413


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_bytes_are_read_or_refused(body: bytes) -> None:
    found = outcome(body)
    assert not isinstance(found, Refusal) or found.status == 400


@settings(deadline=None)
@given(JSON)
def test_reading_is_what_the_json_module_reads(value: Any) -> None:
    body = json.dumps({"value": value}).encode()
    assert document.read(body) == {"value": value}
