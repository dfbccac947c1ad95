from io import BytesIO

import pytest
from gguf import GGUFValueType, GGUFWriter

from deploy.resolving import attention, gguf_header
from deploy.resolving.attention import Cache

QWEN3_8B = {
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "hidden_size": 4096,
}
MLA = {"num_hidden_layers": 61, "kv_lora_rank": 512, "qk_rope_head_dim": 64, "num_attention_heads": 128}
QWEN3_NEXT = {
    "num_hidden_layers": 48,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "head_dim": 256,
    "full_attention_interval": 4,
}
LAYERS = ["linear_attention"] * 3 + ["full_attention"]


def of(architecture, config, **change):
    return attention.of_config(architecture, config | change)


@pytest.mark.parametrize(
    ("architecture", "config", "kind", "per_token"),
    [
        # The worked figures of the model families, from their public configurations.
        ("Qwen3ForCausalLM", QWEN3_8B, "gqa", 147_456),
        ("Qwen3ForCausalLM", QWEN3_8B | {"num_hidden_layers": 64}, "gqa", 262_144),
        ("Glm4MoeForCausalLM", QWEN3_8B | {"num_hidden_layers": 92}, "gqa", 376_832),
        ("MiniMaxM2ForCausalLM", QWEN3_8B | {"num_hidden_layers": 62, "attn_type_list": [1] * 62}, "gqa", 253_952),
        ("DeepseekV3ForCausalLM", MLA, "mla", 70_272),
        ("KimiK25ForConditionalGeneration", MLA, "mla", 70_272),
        ("GlmMoeDsaForCausalLM", MLA | {"num_hidden_layers": 78}, "mla", 89_856),
        ("Glm4MoeLiteForCausalLM", MLA | {"num_hidden_layers": 47}, "mla", 54_144),
        ("Qwen3NextForCausalLM", QWEN3_NEXT, "hybrid-gqa", 24_576),
        ("Qwen3_5MoeForConditionalGeneration", QWEN3_NEXT | {"layer_types": LAYERS * 15}, "hybrid-gqa", 30_720),
        (
            "Qwen3_5ForConditionalGeneration",
            QWEN3_NEXT | {"num_key_value_heads": 4, "layer_types": LAYERS * 16},
            "hybrid-gqa",
            65_536,
        ),
    ],
)
def test_the_families(architecture, config, kind, per_token):
    assert attention.of_config(architecture, config) == Cache(kind=kind, bytes_per_token=per_token)


def test_head_dim_follows_from_the_width():
    config = {key: value for key, value in QWEN3_8B.items() if key != "head_dim"}
    assert of("Qwen3ForCausalLM", config).bytes_per_token == 147_456


def test_without_kv_heads_every_head_has_its_own():
    assert of("LlamaForCausalLM", QWEN3_8B, num_key_value_heads=None).bytes_per_token == 4 * 147_456


def test_a_window_that_is_switched_off_is_none():
    found = of(
        "Qwen3ForCausalLM",
        QWEN3_8B,
        sliding_window=4096,
        use_sliding_window=False,
        layer_types=["full_attention"] * 36,
    )
    assert found.bytes_per_token == 147_456


@pytest.mark.parametrize(
    ("architecture", "config", "change"),
    [
        ("DeepseekV4ForCausalLM", MLA, {}),
        ("SomethingNewForCausalLM", QWEN3_8B, {}),
        (None, QWEN3_8B, {}),
        ("Qwen3ForCausalLM", QWEN3_8B, {"sliding_window": 4096}),
        ("Qwen3ForCausalLM", QWEN3_8B, {"layer_types": ["full_attention", "sliding_attention"]}),
        ("Qwen3ForCausalLM", QWEN3_8B, {"layer_types": 7}),
        ("Qwen3ForCausalLM", QWEN3_8B, {"layer_types": [["full_attention"]]}),
        ("Qwen3ForCausalLM", QWEN3_8B, {"num_hidden_layers": None}),
        ("Qwen3ForCausalLM", QWEN3_8B, {"num_hidden_layers": "many"}),
        ("Qwen3ForCausalLM", QWEN3_8B, {"num_hidden_layers": True}),
        ("Qwen3ForCausalLM", QWEN3_8B, {"num_hidden_layers": -1}),
        ("Qwen3ForCausalLM", QWEN3_8B, {"num_hidden_layers": 10**30}),
        ("Qwen3ForCausalLM", QWEN3_8B, {"num_key_value_heads": [8, 4], "num_attention_heads": None}),
        ("Qwen3ForCausalLM", QWEN3_8B, {"head_dim": None, "hidden_size": None}),
        ("MiniMaxM2ForCausalLM", QWEN3_8B, {"attn_type_list": [0, 1]}),
        ("MiniMaxM2ForCausalLM", QWEN3_8B, {"attn_type_list": 1}),
        ("DeepseekV3ForCausalLM", MLA, {"kv_lora_rank": None}),
        ("DeepseekV3ForCausalLM", MLA, {"qk_rope_head_dim": None}),
        ("Qwen3NextForCausalLM", QWEN3_NEXT, {"full_attention_interval": None}),
        ("Qwen3NextForCausalLM", QWEN3_NEXT, {"full_attention_interval": 0}),
        ("Qwen3NextForCausalLM", QWEN3_NEXT, {"layer_types": ["full_attention", "sliding_attention"]}),
        ("Qwen3NextForCausalLM", QWEN3_NEXT, {"layer_types": ["linear_attention"]}),
    ],
)
def test_what_is_not_known_to_work_so_is_not_guessed(architecture, config, change):
    assert of(architecture, config, **change) is None


def gguf(path, architecture="qwen3", layers=2, **keys):
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
    return attention.of_gguf(architecture, gguf_header.read(BytesIO(path.read_bytes())).values)


@pytest.mark.parametrize(
    ("keys", "per_token"),
    [
        ({}, 2 * 4 * (64 + 64) * 2),
        ({"attention__head_count_kv": 1}, 2 * 1 * (64 + 64) * 2),
        ({"attention__head_count_kv": [2, 1]}, 3 * (64 + 64) * 2),
        (
            {"attention__head_count_kv": 1, "attention__key_length": 128, "attention__value_length": 32},
            2 * (128 + 32) * 2,
        ),
    ],
)
def test_a_plain_gguf(tmp_path, keys, per_token):
    assert gguf(tmp_path / "x.gguf", **keys) == Cache(kind="gqa", bytes_per_token=per_token)


@pytest.mark.parametrize("heads", [2, [0, 0, 0, 2] * 12])
def test_a_hybrid_gguf_keeps_a_cache_in_its_full_layers(tmp_path, heads):
    found = gguf(
        tmp_path / "x.gguf",
        "qwen3next",
        48,
        full_attention_interval=4,
        attention__head_count_kv=heads,
        attention__key_length=256,
        attention__value_length=256,
    )
    assert found == Cache(kind="hybrid-gqa", bytes_per_token=24_576)


@pytest.mark.parametrize(
    ("architecture", "keys"),
    [("qwen3", {"attention__sliding_window": 4096}), ("deepseek2", {}), ("qwen3next", {})],
)
def test_a_gguf_that_is_not_known_to_work_so(tmp_path, architecture, keys):
    assert gguf(tmp_path / "x.gguf", architecture, **keys) is None
