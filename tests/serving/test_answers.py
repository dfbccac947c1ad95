"""Engines' errors in our words: both numbers of an overflow, and none of their insides."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving import answers
from serving.refusal import Refusal


def refusal(status: int, error: object) -> Refusal:
    return answers.refusal(status, json.dumps({"error": error}).encode())


@pytest.mark.parametrize(
    ("error", "prompt", "window"),
    [
        (
            {
                "code": 400,
                "message": "request (3030 tokens) exceeds the available context size (1024 tokens), try increasing it",
                "type": "exceed_context_size_error",
                "n_prompt_tokens": 3030,
                "n_ctx": 1024,
            },
            "3030",
            "1024",
        ),
        (
            {
                "message": "This model's maximum context length is 1024 tokens. However, you requested 10 output "
                "tokens and your prompt contains at least 1015 input tokens, for a total of at least 1025 tokens.",
                "type": "BadRequestError",
                "code": 400,
            },
            "1015",
            "1024",
        ),
        (
            {
                "message": "'max_tokens' or 'max_completion_tokens' is too large: 5000. This model's maximum context "
                "length is 2048 tokens and your request has 20 input tokens (5000 > 2048 - 20).",
                "code": 400,
            },
            "20",
            "2048",
        ),
        (
            {"message": "The decoder prompt (length 2000) is longer than the maximum model length of 512."},
            "2000",
            "512",
        ),
        ({"message": "This model's maximum context length is 1024 tokens."}, "more", "1024"),
    ],
)
def test_overflow_with_both_numbers(error: object, prompt: str, window: str) -> None:
    found = refusal(400, error)
    assert (found.status, found.code) == (400, "context_length_exceeded")
    assert f"maximum context length is {window} tokens" in found.message
    assert f"the prompt has {prompt}" in found.message


@pytest.mark.parametrize(
    ("status", "ours", "code"),
    [
        (400, 400, "engine_refused"),
        (422, 400, "engine_refused"),
        (401, 502, "engine_failed"),
        (404, 400, "unsupported"),
        (429, 503, "engine_busy"),
        (500, 502, "engine_failed"),
        (501, 400, "unsupported"),
        (503, 503, "engine_busy"),
    ],
)
def test_statuses(status: int, ours: int, code: str) -> None:
    found = refusal(status, {"message": "what the engine said"})
    assert (found.status, found.code) == (ours, code)
    assert (found.message == "what the engine said") == (code == "engine_refused")
    assert (found.retry_after_s is not None) == (ours == 503)


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("Field 'n': Value must be between 1 <= value <= 2", "Field 'n': Value must be between 1 <= value <= 2"),
        (
            "Field 'max_tokens': [json.exception.type_error.302] type must be number, but is string",
            "Field 'max_tokens': type must be number, but is string",
        ),
        ("first line\nsecond line", "first line"),
        ("x" * 10_000, "x" * answers.MAX_MESSAGE),
        ("Traceback (most recent call last): …", None),
        ("cannot open /home/user/models/x.gguf", None),
        ("object at 0x7f46e39ff270 failed", None),
        ("", None),
        (7, None),
        (None, None),
    ],
)
def test_complaints_about_the_request_are_passed_on_when_presentable(message: object, shown: str | None) -> None:
    assert refusal(400, {"message": message}).message == (shown or "the engine refused the request")


@settings(deadline=None)
@given(st.integers(400, 599), st.binary(max_size=100))
def test_any_bytes_with_any_status(status: int, body: bytes) -> None:
    assert 400 <= answers.refusal(status, body).status < 600


@settings(deadline=None)
@given(
    st.integers(400, 599),
    st.recursive(
        st.none() | st.integers() | st.text(),
        lambda s: st.lists(s) | st.dictionaries(st.sampled_from(["error", "message", "type", "code", "n_ctx"]), s),
    ),
)
def test_any_json_with_any_status(status: int, value: object) -> None:
    assert 400 <= answers.refusal(status, json.dumps(value).encode()).status < 600


def test_usage() -> None:
    counts = {"prompt_tokens": 7, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 3}}
    found = answers.usage(json.dumps({"choices": [{}], "usage": counts}).encode())
    assert found is not None
    assert (found.prompt_tokens, found.completion_tokens, found.cached_tokens) == (7, 4, 3)
    assert answers.usage(b'{"data":[],"usage":{"prompt_tokens":7}}') is not None
    assert answers.usage(b'{"choices":[]}') is None


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"{}", b'{"choices":3}', b"\xff", b"[" * 100_000, b'{"usage":7}']
)
def test_no_answer(body: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        answers.usage(body)
    assert caught.value.status == 502


def test_an_error_with_status_200() -> None:
    with pytest.raises(Refusal) as caught:
        answers.usage(b'{"error":{"message":"no"}}')
    assert caught.value.status == 502
