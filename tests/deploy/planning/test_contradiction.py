"""Wishes that no box could fulfil are the user's mistake; those that this one cannot are not."""

from __future__ import annotations

import pytest

from deploy.errors import ConfigError
from deploy.hardware import Hardware
from deploy.lockfile import Variant
from deploy.plan import Plan
from tests.deploy.boxes import GB, box, gpu, lock, plan, variant

GGUF = variant()
BF16 = variant(kind="safetensors", precision="bf16", context=40960)


def make(text: str, *variants: Variant, hardware: Hardware | None = None) -> Plan:
    return plan(text, lock(*variants or (GGUF, BF16)), hardware or box())


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ('engine = "llama.cpp"', 'there is no engine "llama.cpp"', "one of: llamacpp, vllm"),
        ('precision = "q9"', 'the model insists on precision = "q9"', "locked variants: gguf/Q4_K_M, safetensors/bf16"),
        ('engine = "llamacpp"\nprecision = "bf16"', "llamacpp does not read safetensors/bf16", "leave out `engine`"),
        ('engine = "vllm"\nprecision = "Q4_K_M"', "vllm does not read gguf/Q4_K_M", "leave out `engine`"),
        (
            'engine = "vllm"\n[engines]\ngpu = "none"\ncpu = "llamacpp"',
            '[engines] gpu = "none"; the model insists on engine = "vllm"; [engines] cpu = "llamacpp" insists',
            "locked variants",
        ),
        ("context = 40961", "context = 40961 is more than the model's 40960", "context = 40960"),
    ],
    ids=["engine", "precision", "format of llamacpp", "format of vllm", "[engines]", "context"],
)
def test_a_contradiction_is_a_config_error_with_the_way_out(text: str, message: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make(text)
    assert message in caught.value.message
    assert "model `chat`" in caught.value.message
    assert hint in (caught.value.hint or "")


def test_the_context_of_a_variant_that_no_engine_reads_does_not_count() -> None:
    """bf16 reaches 40960, but the CPU engine that is insisted on reads the GGUF only."""
    with pytest.raises(ConfigError, match="more than the model's 32768"):
        make('engine = "llamacpp"\ncontext = 40960', hardware=box(gpus=(gpu(),)))


def test_a_model_whose_context_is_not_known_is_taken_at_the_users_word() -> None:
    (chat,) = make("context = 65536", variant(context=None)).models
    assert chat.settings.context_tokens == 65536


def test_what_only_this_box_cannot_do_is_no_contradiction() -> None:
    made = make('engine = "llamacpp"', hardware=box(free_bytes=GB // 2))
    assert made.verdict == "no"


def test_one_contradiction_among_several_models_is_found() -> None:
    two = lock(GGUF, BF16)
    with pytest.raises(ConfigError, match="model `chat`"):
        plan('context = 99999\n[[model]]\nname = "other"', two, box())
