import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.dimensions import MOST, Cache, Recurrent
from deploy.resolving import attention

QWEN3_8B = {
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "hidden_size": 4096,
}
MLA = {"num_hidden_layers": 61, "kv_lora_rank": 512, "qk_rope_head_dim": 64, "num_attention_heads": 128}
SPARSE = MLA | {"index_topk": 2048, "index_head_dim": 128, "index_n_heads": 64}
STATE = {
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_conv_kernel_dim": 4,
}
QWEN3_NEXT = {
    "num_hidden_layers": 48,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "head_dim": 256,
    "full_attention_interval": 4,
    **STATE,
}
LAYERS = ["linear_attention"] * 3 + ["full_attention"]
WINDOWED = {"num_hidden_layers": 4, "sliding_window": 4096}
FULL, SLIDING = "full_attention", "sliding_attention"


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
        ("GlmMoeDsaForCausalLM", SPARSE | {"num_hidden_layers": 78}, "mla", 89_856),
        ("Glm4MoeLiteForCausalLM", MLA | {"num_hidden_layers": 47}, "mla", 54_144),
        ("Qwen3NextForCausalLM", QWEN3_NEXT, "hybrid-gqa", 24_576),
        (
            "Qwen3_5MoeForConditionalGeneration",
            QWEN3_NEXT | {"num_hidden_layers": 60, "layer_types": LAYERS * 15},
            "hybrid-gqa",
            30_720,
        ),
        (
            "Qwen3_5ForConditionalGeneration",
            QWEN3_NEXT | {"num_hidden_layers": 64, "num_key_value_heads": 4, "layer_types": LAYERS * 16},
            "hybrid-gqa",
            65_536,
        ),
    ],
)
def test_the_families(architecture, config, kind, per_token):
    found = attention.of_config(architecture, config)
    assert (found.kind, found.bytes_per_token) == (kind, per_token)


def test_the_dimensions_themselves():
    assert of("Qwen3ForCausalLM", QWEN3_8B) == Cache(kind="gqa", layers=36, kv_heads=8, key_width=128, value_width=128)
    assert of("DeepseekV3ForCausalLM", MLA) == Cache(kind="mla", layers=61, rank=512, rotary_width=64)
    assert of("Qwen3NextForCausalLM", QWEN3_NEXT) == Cache(
        kind="hybrid-gqa",
        layers=12,
        kv_heads=2,
        key_width=256,
        value_width=256,
        recurrent=Recurrent(layers=36, key_heads=16, value_heads=32, key_width=128, value_width=128, kernel=4),
    )


@pytest.mark.parametrize(
    ("architecture", "dtype", "element_bytes"),
    [
        ("Qwen3_5ForCausalLM", {}, 2),
        ("Qwen3_5ForCausalLM", {"mamba_ssm_dtype": "bfloat16"}, 2),
        ("Qwen3_5ForCausalLM", {"mamba_ssm_dtype": "float32"}, 4),
        ("Qwen3NextForCausalLM", {"mamba_ssm_dtype": "float32"}, 2),
    ],
)
def test_how_wide_a_state_is(architecture, dtype, element_bytes):
    assert of(architecture, QWEN3_NEXT, **dtype).recurrent.element_bytes == element_bytes


@pytest.mark.parametrize(
    "change", [*({key: None} for key in STATE), {"mamba_ssm_dtype": "float8"}, {"mamba_ssm_dtype": ["float32"]}]
)
def test_a_state_that_is_not_known_leaves_the_rest_known(change):
    found = of("Qwen3_5ForCausalLM", QWEN3_NEXT, **change)
    assert (found.recurrent, found.bytes_per_token) == (None, 24_576)


@pytest.mark.parametrize(
    ("change", "layers"),
    [
        ({}, None),
        ({"index_topk_freq": 1}, None),
        ({"index_topk_freq": 4}, 2 + 59 // 4),
        ({"index_topk_freq": 4, "index_skip_topk_offset": 61}, None),
        ({"index_topk_freq": 4, "index_skip_topk_offset": 100}, None),
        ({"index_topk_pattern": "FSS" * 20 + "F"}, 21),
        ({"index_topk_pattern": "F"}, None),
        ({"index_topk_pattern": "F" * 61 + "S"}, None),
    ],
)
def test_a_sparse_indexer(change, layers):
    found = of("DeepseekV32ForCausalLM", SPARSE, **change)
    assert (found.bytes_per_token, found.indexer_width, found.indexer_layers) == (70_272, 128, layers)


def test_layers_with_an_indexer_are_those_that_the_engine_would_build():
    """The rule layer by layer, as vLLM asks it of each."""
    for first in (1, 2, 5):
        for every in (1, 2, 3, 7):
            built = sum(max(layer - first + 1, 0) % every == 0 for layer in range(61))
            found = of("GlmMoeDsaForCausalLM", SPARSE, index_topk_freq=every, index_skip_topk_offset=first)
            assert (found.indexer_layers or found.layers) == built


@pytest.mark.parametrize("architecture", ["Qwen2ForCausalLM", "Qwen3MoeForCausalLM", "LlamaForCausalLM"])
def test_head_dim_follows_from_the_width(architecture):
    assert of(architecture, QWEN3_8B, head_dim=None).bytes_per_token == 147_456


def test_without_kv_heads_every_head_of_a_llama_has_its_own():
    assert of("LlamaForCausalLM", QWEN3_8B, num_key_value_heads=None).bytes_per_token == 4 * 147_456


@pytest.mark.parametrize(
    "change",
    [
        {"use_sliding_window": False, "layer_types": [FULL] * 36},
        {"use_sliding_window": False},
        {},
        {"use_sliding_window": True, "sliding_window": None},
        {"use_sliding_window": True, "sliding_window": 0},
    ],
)
def test_a_window_that_is_switched_off_is_none(change):
    found = of("Qwen3ForCausalLM", QWEN3_8B, **{"sliding_window": 4096} | change)
    assert (found.bytes_per_token, found.window, found.window_layers) == (147_456, None, 0)


@pytest.mark.parametrize(
    ("architecture", "change", "full", "windowed"),
    [
        ("MistralForCausalLM", {}, 0, 4),
        ("MixtralForCausalLM", {}, 0, 4),
        ("LlamaForCausalLM", {}, 0, 4),
        ("LlamaForCausalLM", {"layer_types": [SLIDING, FULL, SLIDING, SLIDING]}, 1, 3),
        ("MistralForCausalLM", {"layer_types": [SLIDING, FULL, SLIDING, SLIDING]}, 1, 3),
        ("GptOssForCausalLM", {"layer_types": [SLIDING, FULL] * 2}, 2, 2),
        ("GptOssForCausalLM", {}, 2, 2),
        ("GptOssForCausalLM", {"num_hidden_layers": 5}, 2, 3),
    ],
)
def test_layers_with_a_window(architecture, change, full, windowed):
    found = of(architecture, QWEN3_8B | WINDOWED, **change)
    assert (found.kind, found.layers, found.window, found.window_layers) == ("gqa", full, 4096, windowed)
    assert found.bytes_per_token == full * 4096


@pytest.mark.parametrize(
    ("architecture", "config", "change"),
    [
        ("DeepseekV4ForCausalLM", MLA, {}),
        ("KimiLinearForCausalLM", MLA, {}),
        ("MiniMaxM3SparseForConditionalGeneration", QWEN3_8B, {}),
        ("SomethingNewForCausalLM", QWEN3_8B, {}),
        (None, QWEN3_8B, {}),
        ("Qwen3ForCausalLM", QWEN3_8B, {"sliding_window": 4096, "use_sliding_window": True}),
        ("Qwen3ForCausalLM", QWEN3_8B | WINDOWED, {"layer_types": [FULL, SLIDING] * 2}),
        ("Glm4MoeForCausalLM", QWEN3_8B, {"sliding_window": 4096}),
        ("MistralForCausalLM", QWEN3_8B, {}),
        ("MistralForCausalLM", QWEN3_8B, {"sliding_window": "4096"}),
        ("MistralForCausalLM", QWEN3_8B, {"sliding_window": [4096, None]}),
        ("MistralForCausalLM", QWEN3_8B | WINDOWED, {"layer_types": [SLIDING, "chunked_attention"] * 2}),
        ("GptOssForCausalLM", QWEN3_8B, {}),
        ("Qwen3ForCausalLM", QWEN3_8B, {"layer_types": [FULL] * 35}),
        ("Qwen3ForCausalLM", QWEN3_8B, {"layer_types": 7}),
        ("Qwen3ForCausalLM", QWEN3_8B, {"layer_types": [[FULL]] * 36}),
        ("Qwen3ForCausalLM", QWEN3_8B, {"num_hidden_layers": None}),
        ("Qwen3ForCausalLM", QWEN3_8B, {"num_hidden_layers": "many"}),
        ("Qwen3ForCausalLM", QWEN3_8B, {"num_hidden_layers": True}),
        ("Qwen3ForCausalLM", QWEN3_8B, {"num_hidden_layers": -1}),
        ("Qwen3ForCausalLM", QWEN3_8B, {"num_hidden_layers": 0}),
        ("Qwen3ForCausalLM", QWEN3_8B, {"num_hidden_layers": 10**30}),
        ("Qwen3ForCausalLM", QWEN3_8B, {"num_key_value_heads": None}),
        ("LlamaForCausalLM", QWEN3_8B, {"num_key_value_heads": [8, 4]}),
        ("Qwen3ForCausalLM", QWEN3_8B, {"head_dim": None}),
        ("LlamaForCausalLM", QWEN3_8B, {"head_dim": None, "hidden_size": None}),
        ("LlamaForCausalLM", QWEN3_8B, {"head_dim": None, "hidden_size": 16}),
        ("MiniMaxM2ForCausalLM", QWEN3_8B, {"attn_type_list": [0, 1]}),
        ("MiniMaxM2ForCausalLM", QWEN3_8B, {"attn_type_list": 1}),
        ("DeepseekV3ForCausalLM", MLA, {"kv_lora_rank": None}),
        ("DeepseekV3ForCausalLM", MLA, {"qk_rope_head_dim": None}),
        ("DeepseekV32ForCausalLM", MLA, {}),
        ("DeepseekV3ForCausalLM", SPARSE, {"index_head_dim": None}),
        ("DeepseekV32ForCausalLM", SPARSE, {"index_topk_freq": 0}),
        ("DeepseekV32ForCausalLM", SPARSE, {"index_topk_freq": "4"}),
        ("DeepseekV32ForCausalLM", SPARSE, {"index_topk_pattern": ["S"]}),
        ("DeepseekV32ForCausalLM", SPARSE, {"index_topk_pattern": "S" * 61}),
        ("Qwen3NextForCausalLM", QWEN3_NEXT, {"full_attention_interval": None}),
        ("Qwen3NextForCausalLM", QWEN3_NEXT, {"full_attention_interval": 0}),
        ("Qwen3NextForCausalLM", QWEN3_NEXT, {"full_attention_interval": 100}),
        ("Qwen3NextForCausalLM", QWEN3_NEXT, {"layer_types": [FULL, SLIDING] * 24}),
        ("Qwen3NextForCausalLM", QWEN3_NEXT, {"layer_types": ["linear_attention"] * 48}),
    ],
)
def test_what_is_not_known_to_work_so_is_not_guessed(architecture, config, change):
    assert of(architecture, config, **change) is None


KEYS = sorted(QWEN3_8B | SPARSE | QWEN3_NEXT | {"sliding_window": 1, "layer_types": 1, "index_topk_pattern": 1})
ODD = st.none() | st.booleans() | st.integers(-1, 2**70) | st.floats() | st.text("FS", max_size=3) | st.lists(st.none())


@given(st.sampled_from(sorted(attention.CLASSES)), st.dictionaries(st.sampled_from(KEYS), ODD))
def test_whatever_a_configuration_says_every_number_is_one_that_a_model_can_have(architecture, said):
    found = attention.of_config(architecture, QWEN3_8B | SPARSE | QWEN3_NEXT | said)
    if found is not None:
        assert found.layers + found.window_layers >= 1
        assert 0 <= found.bytes_per_token < found.layers * MOST**2 * 4 + 1
        assert all(1 <= one <= MOST for one in (found.key_width, found.rank, found.indexer_layers) if one is not None)
