"""Who may ask, and that the engine gets exactly what was authorised."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving import document, proxy
from serving.keys import Keyring
from serving.refusal import Refusal
from tests.serving.orders import CHAT, COMPLETION, EMBEDDING, JSON, MESSAGES, chat, decide, names, outcome, refused

KEYRING = Keyring(["sk-ow-test"])


@pytest.mark.parametrize(
    "header",
    [
        (b"authorization", b"Bearer sk-ow-test"),
        (b"authorization", b"bearer  sk-ow-test"),
        (b"x-api-key", b"sk-ow-test"),
    ],
)
def test_key(header: tuple[bytes, bytes]) -> None:
    proxy.authorise([(b"host", b"x"), header], KEYRING)


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"authorization", b"")],
        [(b"authorization", b"Bearer")],
        [(b"authorization", b"Bearer ")],
        [(b"authorization", b"Bearer wrong")],
        [(b"authorization", b"Bearer sk-ow-tes")],
        [(b"authorization", b"Bearer sk-ow-test extra")],
        [(b"authorization", b"sk-ow-test")],
        [(b"authorization", b"Basic sk-ow-test")],
        [(b"authorization", b"Bearer \xff\xfe")],
        [(b"authorization", b"Bearer " + b"x" * 1_000_000)],
        [(b"authorization", b"Bearer sk-ow-test"), (b"authorization", b"Bearer sk-ow-test")],
        [(b"authorization", b"Bearer sk-ow-test"), (b"x-api-key", b"sk-ow-test")],
        [(b"x-api-key", b"Bearer sk-ow-test")],
        [(b"x-auth", b"Bearer sk-ow-test")],
    ],
    ids=range(15),
)
def test_no_key(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(Refusal) as caught:
        proxy.authorise(headers, KEYRING)
    assert (caught.value.status, caught.value.code) == (401, "invalid_api_key")
    assert b"sk-ow-test" not in caught.value.body


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([b"authorization", b"x-api-key", b"host"]), st.binary(max_size=40)), max_size=4)
)
def test_no_header_but_the_key_opens(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(Refusal, match="a valid key is needed"):
        proxy.authorise(headers, KEYRING)


def test_headers_beyond_reason() -> None:
    proxy.screen([(b"a", b"b")] * proxy.MAX_HEADERS)
    for headers in ([(b"a", b"b")] * (proxy.MAX_HEADERS + 1), [(b"a", b"b" * proxy.MAX_HEADER_BYTES)]):
        with pytest.raises(Refusal) as caught:
            proxy.screen(headers)
        assert caught.value.status == 431


FIELDS = st.sampled_from(
    names(
        "model messages prompt input stream stream_options max_tokens n tools chat_template_kwargs structured_outputs"
    )
)


@settings(deadline=None)
@given(st.dictionaries(FIELDS | st.text(max_size=8), JSON, max_size=6), st.sampled_from([CHAT, COMPLETION, EMBEDDING]))
def test_any_object_is_an_order_or_a_refusal(fields: dict[str, Any], path: str) -> None:
    found = outcome(json.dumps({"model": "chat", **fields}).encode(), path)
    if isinstance(found, Refusal):
        assert 400 <= found.status < 500
    else:
        assert json.loads(found.body)["model"] == "chat"


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from(["temperature", "seed", "stop", "user", "metadata"]), JSON, max_size=5),
    st.sampled_from(["chat", "gpt-4"]),
    st.sampled_from([None, False, True]),
    st.sampled_from([None, {}, {"include_usage": None}, {"include_usage": False}, {"include_usage": True}]),
    st.sampled_from([None, 1]),
)
def test_forwarded_is_what_was_authorised(
    fields: dict[str, Any], model: str, stream: bool | None, options: dict[str, Any] | None, indent: int | None
) -> None:
    asked = {**fields, "model": model, "messages": MESSAGES, "stream": stream, "stream_options": options}
    body = json.dumps(asked, indent=indent).encode()
    order = decide(body)
    wants = bool(options and options.get("include_usage"))
    expected = {**asked, "model": "chat"}
    if stream and not wants:
        expected["stream_options"] = {**(options or {}), "include_usage": True}
    assert document.read(order.body) == expected
    assert order.hide_usage == (bool(stream) and not wants)
    if expected == asked:
        assert order.body == body


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["temperature", "timings_per_token", "logprobs", "top_logprobs"]), JSON, max_size=4
    ),
    st.sampled_from(["chat", "gpt-4"]),
    st.sampled_from([None, False, True]),
    st.sampled_from([None, {}, {"include_usage": False}]),
)
def test_a_whole_answer_is_asked_for_as_a_stream_where_the_engine_needs_it(
    fields: dict[str, Any], model: str, stream: bool | None, options: dict[str, Any] | None
) -> None:
    asked = {**fields, "model": model, "messages": MESSAGES, "stream": stream, "stream_options": options}
    body = json.dumps(asked).encode()
    plain = decide(body)
    order = decide(body, cancels_whole_answers=False)
    assert plain.as_stream is None
    assert (order.body, order.stream, order.hide_usage) == (plain.body, plain.stream, plain.hide_usage)
    if stream or fields.get("logprobs") or fields.get("top_logprobs"):
        assert order.as_stream is None
    else:
        assert order.as_stream
        wish = {"stream": True, "stream_options": {"include_usage": True}, "timings_per_token": True}
        assert document.read(order.as_stream) == {**asked, "model": "chat", **wish}


def test_embeddings_are_never_a_stream() -> None:
    body = json.dumps({"model": "chat", "input": "hello"}).encode()
    assert decide(body, EMBEDDING, cancels_whole_answers=False).as_stream is None


def test_new_fields_go_in_front_of_the_rest_untouched() -> None:
    body = b' {"model":"chat","messages":[{"role":"user","content":"\\u00e9"}],"stream":true,"seed":1.0}'
    assert decide(body).body == b'{"stream_options":{"include_usage":true},' + body[2:]


def test_a_model_inside_a_message_is_not_the_model() -> None:
    body = chat(model="gpt-4", messages=[{"role": "user", "content": '{"model": "gpt-4"}', "model": "gpt-4"}])
    forwarded = json.loads(decide(body).body)
    assert forwarded["model"] == "chat"
    assert forwarded["messages"][0]["model"] == "gpt-4"


def test_unknown_model() -> None:
    refusal = refused(chat(model="gpt-9"))
    assert (refusal.status, refusal.code, refusal.param) == (404, "model_not_found", "model")


def test_more_messages_than_the_window_has_tokens() -> None:
    refusal = refused(chat(messages=MESSAGES * 65))
    assert (refusal.status, refusal.code) == (400, "context_length_exceeded")
    assert "64" in refusal.message
    assert "65" in refusal.message


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([(b"content-length", b"16777217")], 413),
        ([(b"content-length", b"9" * 20)], 413),
        ([(b"content-encoding", b"gzip")], 415),
        ([(b"content-encoding", b"identity"), (b"content-length", b"16777216")], None),
    ],
)
def test_before_the_body(headers: list[tuple[bytes, bytes]], status: int | None) -> None:
    if status is None:
        proxy.expect_body(headers)
        return
    with pytest.raises(Refusal) as caught:
        proxy.expect_body(headers)
    assert caught.value.status == status
