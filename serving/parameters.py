"""What a request may say: an allow-list of parameters per path, their types, and why some are refused by name.

The allow-list is OpenAI's documented parameters plus the sampling controls of our engines. What is not on it is
refused, never dropped: a parameter that does nothing is a lie to the client.
Source: the OpenAI API reference; vLLM's and llama.cpp's protocols; the CVEs named at each refusal.
"""

from __future__ import annotations

import difflib
import re
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from serving.refusal import Refusal, invalid

_Count = Annotated[int, Meta(ge=1, le=2**31 - 1)]
"""Engines keep counts in 32 bits."""


class StreamOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None
    include_obfuscation: bool | None = None


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What every path needs; the rest of a body is the engine's to judge."""

    model: Annotated[str, Meta(min_length=1, max_length=256)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: _Count | None = None
    max_completion_tokens: _Count | None = None
    min_tokens: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    best_of: Annotated[int, Meta(ge=1, le=128)] | None = None
    chat_template_kwargs: dict[str, bool | int | str] | None = None
    structured_outputs: dict[str, Any] | None = None


class Chat(Asked, frozen=True, kw_only=True):
    messages: Annotated[list[dict[str, Any]], Meta(min_length=1)]


class Completion(Asked, frozen=True, kw_only=True):
    prompt: str | list[Any]


class Embedding(Asked, frozen=True, kw_only=True):
    input: str | list[Any]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SAMPLING = _names(
    """
    model stream stream_options user seed stop n temperature top_p max_tokens max_completion_tokens presence_penalty
    frequency_penalty logit_bias logprobs service_tier store metadata safety_identifier prompt_cache_key
    top_k min_p typical_p top_n_sigma repetition_penalty repeat_penalty repeat_last_n min_tokens ignore_eos
    stop_token_ids include_stop_str_in_output skip_special_tokens spaces_between_special_tokens bad_words
    allowed_token_ids add_special_tokens min_keep mirostat mirostat_tau mirostat_eta dynatemp_range dynatemp_exponent
    xtc_probability xtc_threshold dry_multiplier dry_base dry_allowed_length dry_penalty_last_n dry_sequence_breakers
    samplers n_probs post_sampling_probs cache_prompt timings_per_token return_tokens return_token_ids return_progress
    response_format json_schema structured_outputs echo
    """
)
_CHAT = _SAMPLING | _names(
    """
    messages tools tool_choice parallel_tool_calls functions function_call top_logprobs reasoning_effort verbosity
    modalities include_reasoning reasoning_format chat_template_kwargs add_generation_prompt continue_final_message
    """
)
_COMPLETION = _SAMPLING | {"prompt", "suffix", "best_of"}
_EMBEDDING = _names("model input encoding_format dimensions user")

PATHS: dict[str, tuple[type[Asked], frozenset[str]]] = {
    "/v1/chat/completions": (Chat, _CHAT),
    "/v1/completions": (Completion, _COMPLETION),
    "/v1/embeddings": (Embedding, _EMBEDDING),
}
"""Everything an engine is ever asked: the body's type and the names it may hold."""

TEMPLATE_SWITCHES = _names("enable_thinking thinking reasoning_effort thinking_budget")

_DANGEROUS = {
    "chat_template": "a template is a program; the locked one is used",  # CVE-2026-115911, -115918
    "mm_processor_kwargs": "it can name code to load",  # CVE-2026-114053
    "media_io_kwargs": "it reaches into the media readers",  # CVE-2026-105760
    "prompt_embeds": "it is a serialised tensor",
    "logits_processors": "it names code to run",
    "truncate_prompt_tokens": "it would cut the prompt silently",
    "n_keep": "it would cut the prompt silently",
    "n_discard": "it would cut the prompt silently",
    "n_predict": "use `max_tokens`",
    "grammar": "use `response_format` with a JSON schema",
    "id_slot": "slots are the gateway's to give",
    "slot_id": "slots are the gateway's to give",
    "priority": "the queue is first in, first out",
    "lora": "adapters are part of the deployment",
    "kv_transfer_params": "the cache is the engine's own",
}
_DANGEROUS_STRUCTURES = _names("regex grammar structural_tag")  # CVE-2026-55574 and its siblings
_DANGEROUS_PARTS = re.compile(r"_embeds$|^image_pil$|^file$")
_PARAM = re.compile(r" - at `\$\.?([^`]*)`$")


def check(path: str, document: dict[str, Any]) -> Asked:
    """The typed part of a body for ``path``. Raises Refusal 400 naming the parameter."""
    shape, allowed = PATHS[path]
    if unknown := document.keys() - allowed:
        raise _unknown(min(unknown), allowed)
    try:
        asked = msgspec.convert(document, shape)
    except msgspec.ValidationError as error:
        raise _mistyped(str(error)) from None
    _refuse_inside("chat_template_kwargs", (asked.chat_template_kwargs or {}).keys() - TEMPLATE_SWITCHES)
    _refuse_inside("structured_outputs", (asked.structured_outputs or {}).keys() & _DANGEROUS_STRUCTURES)
    if isinstance(asked, Chat):
        for message in asked.messages:
            if isinstance(content := message.get("content"), list):
                _check_parts(content)
    return asked


def _check_parts(parts: list[Any]) -> None:
    """Media only inline: an engine that fetches addresses for clients is a door into the network behind it."""
    for part in parts:
        for name, value in part.items() if isinstance(part, dict) else ():
            if _DANGEROUS_PARTS.search(name):
                raise invalid(f"content of kind `{name}` is not accepted", param="messages", code="parameter_refused")
            if name.endswith("_url"):
                url = value.get("url") if isinstance(value, dict) else value
                if not isinstance(url, str) or not url.lower().startswith("data:"):
                    raise invalid(f"`{name}` must be a data: URL", param="messages", code="parameter_refused")


def _refuse_inside(param: str, names: set[str]) -> None:
    if names:
        raise invalid(f"`{param}.{min(names)[:64]}` is not accepted", param=param, code="parameter_refused")


def _unknown(name: str, allowed: frozenset[str]) -> Refusal:
    shown = name[:64]
    if name.startswith("guided_"):
        return invalid(f"`{shown}` is not accepted: use `response_format`", param=shown, code="parameter_refused")
    if why := _DANGEROUS.get(name):
        return invalid(f"`{name}` is not accepted: {why}", param=name, code="parameter_refused")
    near = difflib.get_close_matches(shown, allowed, n=1)
    hint = f"; did you mean `{near[0]}`?" if near else ""
    return invalid(f"unknown parameter `{shown}`{hint}", param=shown, code="unknown_parameter")


def _mistyped(reason: str) -> Refusal:
    """msgspec's sentence, with its path as ``param``."""
    if found := _PARAM.search(reason):
        param = found.group(1)
        return invalid(f"`{param}`: {_PARAM.sub('', reason)}", param=re.split(r"[.\[]", param)[0])
    missing = re.search(r"required field `(\w+)`", reason)
    return invalid(reason, param=missing.group(1) if missing else None)
