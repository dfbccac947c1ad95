from io import BytesIO

import pytest
from gguf import GGUFValueType, GGUFWriter
from hypothesis import given
from hypothesis import strategies as st

from deploy.dimensions import Cache, Recurrent
from deploy.resolving import gguf_attention, gguf_header

PLAIN = Cache(kind="gqa", layers=2, kv_heads=4, key_width=64, value_width=64)
HYBRID = {"attention__key_length": 256, "attention__value_length": 256}
STATE = {
    "ssm__group_count": 16,
    "ssm__state_size": 128,
    "ssm__time_step_rank": 32,
    "ssm__inner_size": 4096,
    "ssm__conv_kernel": 4,
}
MLA = {
    "attention__head_count_kv": 1,
    "attention__kv_lora_rank": 512,
    "attention__key_length": 576,
    "attention__value_length": 512,
    "attention__key_length_mla": 192,
    "attention__value_length_mla": 128,
    "rope__dimension_count": 64,
}


def of(path, architecture="qwen3", layers=2, **keys):
    """Of a GGUF with these keys of its own."""
    writer = GGUFWriter(path, architecture)
    writer.add_block_count(layers)
    writer.add_embedding_length(256)
    writer.add_head_count(4)
    for key, value in keys.items():
        array = (GGUFValueType.ARRAY, GGUFValueType.UINT32)
        kinds = array if isinstance(value, list) else (GGUFValueType.UINT32,)
        writer.add_key_value(f"{architecture}.{key.replace('__', '.')}", value, *kinds)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return gguf_attention.of_gguf(architecture, gguf_header.read(BytesIO(path.read_bytes())).values)


@pytest.mark.parametrize(
    ("keys", "per_token"),
    [
        ({}, 2 * 4 * (64 + 64) * 2),
        ({"attention__head_count_kv": 1}, 2 * 1 * (64 + 64) * 2),
        ({"attention__head_count_kv": [2, 2]}, 2 * 2 * (64 + 64) * 2),
        ({"attention__head_count_kv": [2, 2, 0], "nextn_predict_layers": 0}, 2 * 2 * (64 + 64) * 2),
        (
            {"attention__head_count_kv": 1, "attention__key_length": 128, "attention__value_length": 32},
            2 * (128 + 32) * 2,
        ),
    ],
)
def test_a_plain_one(tmp_path, keys, per_token):
    found = of(tmp_path / "x.gguf", **keys)
    assert (found.kind, found.layers, found.bytes_per_token) == ("gqa", 2, per_token)


def test_blocks_that_guess_the_token_after_the_next_keep_nothing(tmp_path):
    assert of(tmp_path / "x.gguf", "glm4moe", 3, nextn_predict_layers=1) == PLAIN


@pytest.mark.parametrize("heads", [2, [0, 0, 0, 2] * 12])
@pytest.mark.parametrize("interval", [{}, {"full_attention_interval": 4}])
def test_a_hybrid_keeps_tokens_in_its_full_layers_and_a_state_in_the_others(tmp_path, heads, interval):
    found = of(tmp_path / "x.gguf", "qwen3next", 48, attention__head_count_kv=heads, **HYBRID, **STATE, **interval)
    assert found == Cache(
        kind="hybrid-gqa",
        layers=12,
        kv_heads=2,
        key_width=256,
        value_width=256,
        recurrent=Recurrent(
            layers=36, key_heads=16, value_heads=32, key_width=128, value_width=128, kernel=4, element_bytes=4
        ),
    )
    assert found.bytes_per_token == 24_576


def test_a_hybrid_may_end_in_a_block_that_guesses(tmp_path):
    found = of(tmp_path / "x.gguf", "qwen35", 49, attention__head_count_kv=2, nextn_predict_layers=1, **HYBRID)
    assert (found.bytes_per_token, found.recurrent) == (24_576, None)


def test_every_second_layer_of_gpt_oss_has_a_window(tmp_path):
    found = of(tmp_path / "x.gguf", "gpt-oss", 5, attention__sliding_window=128, attention__head_count_kv=2)
    assert (found.layers, found.window_layers, found.window) == (2, 3, 128)


def test_compressed_attention(tmp_path):
    found = of(tmp_path / "x.gguf", "deepseek2", 61, **MLA)
    assert found == Cache(kind="mla", layers=61, rank=512, rotary_width=64)
    assert found.bytes_per_token == 70_272


@pytest.mark.parametrize(
    ("architecture", "keys"),
    [
        ("qwen3", {"attention__sliding_window": 4096}),
        ("qwen3", {"attention__head_count_kv": [2, 1]}),
        ("qwen3", {"attention__head_count_kv": [2]}),
        ("qwen3", {"attention__head_count_kv": [0, 0]}),
        ("qwen3", {"attention__head_count_kv": 0}),
        ("qwen3", {"attention__key_length": 0}),
        ("qwen3", {"nextn_predict_layers": 2}),
        ("qwen3next", {}),
        ("qwen3next", {"full_attention_interval": 2, "attention__recurrent_layers": [1, 0]}),
        ("gpt-oss", {}),
        ("gpt-oss", {"attention__sliding_window": 128, "attention__sliding_window_pattern": 3}),
        ("deepseek2", {}),
        ("deepseek2", MLA | {"attention__key_length_mla": 0}),
        ("deepseek2", MLA | {"attention__key_length": 192}),
        ("glm-dsa", MLA),
        ("gemma3", {}),
    ],
)
def test_what_is_not_known_to_work_so_is_not_guessed(tmp_path, architecture, keys):
    assert of(tmp_path / "x.gguf", architecture, **keys) is None


@pytest.mark.parametrize("given", [[], [True, True], [2.0, 2.0], [2, None], "22"])
def test_kv_heads_layer_by_layer_are_numbers(given):
    usual = {"qwen3.block_count": 2, "qwen3.embedding_length": 256, "qwen3.attention.head_count": 4}
    assert gguf_attention.of_gguf("qwen3", usual | {"qwen3.attention.head_count_kv": given}) is None


NAMES = [key.replace("__", ".") for key in {**MLA, **STATE, "block_count": 1, "attention__head_count": 1}]
ODD = st.none() | st.booleans() | st.integers(-1, 2**64) | st.floats() | st.text() | st.lists(st.integers(-1, 3))


@given(st.sampled_from(["qwen3", "qwen3next", "gpt-oss", "deepseek2"]), st.dictionaries(st.sampled_from(NAMES), ODD))
def test_no_header_makes_it_fail(architecture, said):
    usual = {"block_count": 4, "embedding_length": 256, "attention.head_count": 4, "attention.sliding_window": 128}
    values = {f"{architecture}.{key}": value for key, value in (usual | said).items()}
    found = gguf_attention.of_gguf(architecture, values)
    assert found is None or found.bytes_per_token >= 0
