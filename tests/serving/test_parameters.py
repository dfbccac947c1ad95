"""The allow-list: what may be asked, what is refused by name, and what is looked into."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.serving.orders import CHAT, COMPLETION, EMBEDDING, chat, decide, names, refused

DANGEROUS = names("""
    chat_template mm_processor_kwargs media_io_kwargs guided_json guided_regex guided_choice guided_grammar
    guided_decoding_backend prompt_embeds logits_processors truncate_prompt_tokens id_slot slot_id n_keep n_discard
    n_predict grammar priority lora kv_transfer_params
""")


@pytest.mark.parametrize("name", DANGEROUS)
@pytest.mark.parametrize("value", [None, "x", {}])
def test_dangerous_parameters_are_refused_by_name(name: str, value: Any) -> None:
    refusal = refused(chat(**{name: value}))
    assert (refusal.status, refusal.param, refusal.code) == (400, name, "parameter_refused")
    assert f"`{name}`" in refusal.message


def test_unknown_parameters_are_refused_with_the_nearest() -> None:
    refusal = refused(chat(max_token=3))
    assert (refusal.status, refusal.param, refusal.code) == (400, "max_token", "unknown_parameter")
    assert "did you mean `max_tokens`?" in refusal.message


@pytest.mark.parametrize(("path", "name"), [(COMPLETION, "messages"), (CHAT, "prompt"), (EMBEDDING, "stream")])
def test_each_path_has_its_own_parameters(path: str, name: str) -> None:
    assert refused(chat(**{name: []}), path).code == "unknown_parameter"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"chat_template_kwargs": {"enable_thinking": False, "chat_template": "x"}}, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"tokenize": True}}, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"enable_thinking": [1]}}, "chat_template_kwargs"),
        ({"structured_outputs": {"regex": "(a+)+$"}}, "structured_outputs"),
        ({"structured_outputs": {"grammar": "root ::= x"}}, "structured_outputs"),
    ],
)
def test_what_is_inside_is_looked_at(fields: dict[str, Any], param: str) -> None:
    refusal = refused(chat(**fields))
    assert (refusal.status, refusal.param) == (400, param)


@pytest.mark.parametrize(
    "fields",
    [
        {"chat_template_kwargs": {"enable_thinking": False}},
        {"structured_outputs": {"json": {"type": "object"}}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}], "tool_choice": "auto"},
        {"temperature": 0, "top_p": 1, "top_k": 1, "seed": 1, "stop": ["x"], "logprobs": True, "top_logprobs": 2},
        {"ignore_eos": True, "cache_prompt": False, "min_tokens": 3, "max_completion_tokens": 3, "user": "u"},
        {"max_tokens": None, "n": None, "stream": None, "stream_options": None},
    ],
)
def test_ordinary_parameters_pass(fields: dict[str, Any]) -> None:
    assert json.loads(decide(chat(**fields)).body) == json.loads(chat(**fields))


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}},
        {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}},
        {"type": "image_url", "image_url": "HTTPS://x"},
        {"type": "image_url", "image_url": {"url": 7}},
        {"type": "image_url", "image_url": None},
        {"video_url": {"url": "//x"}},
        {"type": "audio_url", "audio_url": {"url": "ftp://x"}},
        {"type": "image_embeds", "image_embeds": "gAS"},
    ],
)
def test_remote_and_serialised_media_are_refused(part: dict[str, Any]) -> None:
    refusal = refused(chat(messages=[{"role": "user", "content": [{"type": "text", "text": "what?"}, part]}]))
    assert (refusal.status, refusal.param, refusal.code) == (400, "messages", "parameter_refused")


def test_inline_media_pass() -> None:
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    decide(chat(messages=[{"role": "user", "content": [part]}]))
