import contextlib
import hashlib
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy import lockfile
from deploy.dimensions import Cache, Shape
from deploy.errors import LockError
from deploy.lockfile import Facts
from deploy.resolving import attention, facts, gguf_header
from tests import tiny
from tests.deploy import boxes

QWEN3 = {
    "architectures": ["Qwen3ForCausalLM"],
    "torch_dtype": "bfloat16",
    "max_position_embeddings": 40960,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "hidden_size": 4096,
}


def contents(config, files):
    """Path → bytes of a folder: keyword ``a__json`` is ``a.json``."""
    named = {"config.json": config} | {name.replace("__", "."): content for name, content in files.items()}
    return {
        name: content if isinstance(content, bytes) else json.dumps(content).encode() for name, content in named.items()
    }


def described(config, **files):
    encoded = contents(config, files)
    return facts.of_folder(encoded, encoded.__getitem__)


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


def test_a_configuration_that_is_far_too_long_is_not_decoded():
    content = b'{"a":[' + b"[]," * (facts.DECODED_BYTES // 2) + b"[]]}"
    with pytest.raises(LockError, match=r"`config.json` has 6 MB, no configuration needs 4 MB"):
        described(content)


def test_a_plain_model():
    found = described(QWEN3)
    assert found.precision == "bf16"
    assert found.facts == Facts(
        architecture="Qwen3ForCausalLM",
        context=40960,
        cache=Cache(kind="gqa", layers=36, kv_heads=8, key_width=128, value_width=128),
        shape=Shape(layers=36, hidden=4096, heads=32),
    )
    assert (found.facts.attention, found.facts.kv_bytes_per_token) == ("gqa", 147_456)


def test_a_multimodal_model_keeps_its_dimensions_one_level_down():
    found = described({"architectures": ["MistralForCausalLM"], "text_config": QWEN3 | {"sliding_window": None}})
    assert (found.precision, found.facts.context, found.facts.kv_bytes_per_token) == ("bf16", 40960, 147456)


@pytest.mark.parametrize(
    ("change", "precision"),
    [
        ({"dtype": "float16"}, "fp16"),
        ({"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}, "fp8"),
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, "int4"),
        ({"quantization_config": {"quant_method": "awq", "bits": 33}}, "awq"),
        ({"quantization_config": {"quant_method": "compressed-tensors"}}, "compressed-tensors"),
        ({"quantization_config": {"quant_method": "x y\n"}}, "bf16"),
        ({"torch_dtype": None}, "unknown"),
        ({"torch_dtype": "a/b"}, "unknown"),
    ],
)
def test_precision(change, precision):
    assert described(QWEN3 | change).precision == precision


@pytest.mark.parametrize("windowed", [False, True])
def test_a_cache_that_no_model_has_is_not_known(windowed):
    huge = {"num_hidden_layers": 1 << 20, "num_key_value_heads": 1 << 10, "head_dim": 1 << 10}
    window = {"architectures": ["MistralForCausalLM"], "sliding_window": 4096} if windowed else {}
    assert described(QWEN3 | window).facts.cache is not None
    assert described(QWEN3 | window | huge).facts.cache is None


@pytest.mark.parametrize(
    ("groups", "precision"),
    [
        ([{"num_bits": 4, "type": "int"}], "int4"),
        ([{"num_bits": 8, "type": "float"}], "fp8"),
        ([{"num_bits": 4, "type": "int"}, {"num_bits": 8, "type": "float"}], "compressed-tensors"),
        ([{"num_bits": "4", "type": "int"}], "compressed-tensors"),
        ([{"num_bits": 1 << 40, "type": "int"}], "compressed-tensors"),
        ([None], "compressed-tensors"),
        ([], "compressed-tensors"),
    ],
)
def test_compressed_tensors_are_named_by_their_weights(groups, precision):
    config = {f"group_{number}": {"weights": weights} for number, weights in enumerate(groups)}
    quantized = {"quant_method": "compressed-tensors", "config_groups": config}
    assert described(QWEN3 | {"quantization_config": quantized}).precision == precision


@pytest.mark.parametrize(
    ("files", "template"),
    [
        ({}, None),
        ({"tokenizer_config__json": {}}, None),
        ({"tokenizer_config__json": {"chat_template": "T"}}, "T"),
        ({"tokenizer_config__json": {"chat_template": [{"name": "tool_use", "template": "U"}]}}, None),
        (
            {
                "tokenizer_config__json": {
                    "chat_template": [{"name": "tool_use", "template": "U"}, {"name": "default", "template": "T"}]
                }
            },
            "T",
        ),
        ({"tokenizer_config__json": {"chat_template": "old"}, "chat_template__json": {"chat_template": "T"}}, "T"),
        ({"tokenizer_config__json": {"chat_template": "T"}, "chat_template__json": {"x": 1}}, "T"),
        ({"tokenizer_config__json": {"chat_template": "old"}, "chat_template__jinja": b"T"}, "T"),
        ({"chat_template__json": {"chat_template": "old"}, "chat_template__jinja": b"T\xff"}, "T\ufffd"),
    ],
)
def test_the_template_that_engines_use_is_found_and_hashed(files, template):
    found = contents(QWEN3, files)
    assert facts.template_source(found, found.__getitem__) == template
    assert described(QWEN3, **files).facts.chat_template == (template and sha256(template))


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b"3", b'{"a":' * 100_000, b'{"a": 1' + b"0" * 10_000 + b"}"])
def test_a_config_that_is_none_is_refused(content):
    with pytest.raises(LockError, match="not a JSON object"):
        described(content)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("qwen2.5-coder-0.5b-instruct-q4_k_m.gguf", "Q4_K_M"),
        ("SmolLM2-135M-Instruct.Q4_1.gguf", "Q4_1"),
        ("Q8_0/MiniMax-M2.5-Q8_0-00001-of-00006.gguf", "Q8_0"),
        ("x-IQ2_XXS.gguf", "IQ2_XXS"),
        ("x-UD-Q4_K_XL.gguf", "Q4_K_XL"),
        ("x.BF16.gguf", "BF16"),
        ("Qwen3-8B.gguf", None),
    ],
)
def test_the_label_of_a_file_name(name, expected):
    assert facts.label(name) == expected


def test_a_gguf_and_its_folder_say_the_same(tmp_path):
    with tiny.gguf(tmp_path / "tiny.gguf").open("rb") as stream:
        of_gguf = facts.of_gguf(gguf_header.read(stream), "tiny.gguf")
    folder = tiny.huggingface(tmp_path / "folder")
    of_folder = facts.of_folder([path.name for path in folder.iterdir()], lambda name: (folder / name).read_bytes())
    assert (of_gguf.precision, of_folder.precision) == ("F16", "bf16")
    assert of_gguf.facts.architecture == "qwen3"
    assert msgspec.structs.replace(of_gguf.facts, architecture="Qwen3ForCausalLM") == of_folder.facts
    assert of_gguf.facts.kv_bytes_per_token == tiny.LAYERS * tiny.KV_HEADS * 2 * tiny.HEAD * 2
    assert of_gguf.facts.chat_template == sha256(tiny.TEMPLATE)


def test_dimensions_that_no_model_has_are_not_known():
    found = described(QWEN3 | {"max_position_embeddings": 10**30, "num_hidden_layers": -36}).facts
    assert (found.context, found.kv_bytes_per_token) == (None, None)


@pytest.mark.parametrize("architectures", ["Qwen3ForCausalLM", [], [7], ["a\nb"], ["x" * 101], None])
def test_an_architecture_that_is_no_name_is_not_known(architectures):
    assert described(QWEN3 | {"architectures": architectures}).facts.architecture is None


def test_what_is_found_wins_over_what_was_known():
    found = facts.completed(Facts(context=1), Facts(context=2, parameters=3, vllm_args=("--x",)))
    assert found == Facts(context=1, parameters=3, vllm_args=("--x",))


KEYS = st.sampled_from(
    [
        *("architectures", "text_config", "quantization_config", "quant_method", "config_groups", "weights", "bits"),
        *("num_hidden_layers", "layer_types", "kv_lora_rank", "attn_type_list", "torch_dtype", "chat_template", "name"),
    ]
)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("Qwen3_5ForCausalLM")
DOCUMENTS = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner))


DIMENSIONS = st.sampled_from(
    [
        *(
            "num_hidden_layers",
            "num_key_value_heads",
            "head_dim",
            "sliding_window",
            "use_sliding_window",
            "kv_lora_rank",
        ),
        *("qk_rope_head_dim", "index_head_dim", "index_topk", "index_topk_freq", "full_attention_interval"),
        *("linear_num_key_heads", "linear_num_value_heads", "linear_key_head_dim", "linear_value_head_dim"),
        *("linear_conv_kernel_dim", "num_local_experts", "intermediate_size", "vocab_size"),
    ]
)
NUMBERS = st.integers(1, 100) | st.sampled_from([0, -1, 2**32, 2**32 + 1, 2**60, True, None, 1.5, "1"])


@given(st.sampled_from(sorted(attention.CLASSES)), st.dictionaries(DIMENSIONS, NUMBERS))
def test_whatever_numbers_a_configuration_gives_the_lock_that_is_written_can_be_read(architecture, numbers):
    found = described(QWEN3 | numbers | {"architectures": [architecture]}).facts
    variant = msgspec.structs.replace(boxes.variant(), facts=found)
    again = lockfile.parse(lockfile.write(boxes.lock(variant)))
    assert again.models[0].variants[0].facts == found


@given(st.dictionaries(KEYS, DOCUMENTS), DOCUMENTS)
def test_any_configuration_says_something_that_a_lock_can_hold(config, tokenizer):
    with contextlib.suppress(LockError):
        found = described(QWEN3 | config, tokenizer_config__json=tokenizer)
        assert facts.NAME.fullmatch(found.precision)
        assert msgspec.json.decode(msgspec.json.encode(found.facts), type=Facts) == found.facts
