import hashlib
import json
from io import BytesIO

import msgspec
import pytest
from gguf import GGUFValueType, GGUFWriter

from deploy import facts
from deploy.errors import LockError
from deploy.lockfile import Facts
from tests import tiny

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


def described(config, known=(), **files):
    """Of a folder with this config and other files: keyword ``a__json`` is ``a.json``."""
    contents = {"config.json": config} | {name.replace("__", "."): content for name, content in files.items()}
    encoded = {
        name: content if isinstance(content, bytes) else json.dumps(content).encode()
        for name, content in contents.items()
    }
    return facts.of_folder(encoded, encoded.__getitem__, known)


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


def test_a_plain_model():
    found = described(QWEN3)
    assert found.precision == "bf16"
    assert found.facts == Facts(
        architecture="Qwen3ForCausalLM", context=40960, attention="gqa", kv_bytes_per_token=147456
    )


def test_head_dim_follows_from_the_width():
    config = {key: value for key, value in QWEN3.items() if key != "head_dim"}
    assert described(config).facts.kv_bytes_per_token == 147456


@pytest.mark.parametrize(
    "change",
    [
        {"architectures": ["DeepseekV3ForCausalLM"], "kv_lora_rank": 512},
        {"architectures": ["SomethingNewForCausalLM"]},
        {"architectures": None},
        {"sliding_window": 4096},
        {"layer_types": ["full_attention", "sliding_attention"]},
        {"layer_types": 7},
        {"num_hidden_layers": None},
        {"num_hidden_layers": "many"},
        {"num_key_value_heads": [8, 4], "num_attention_heads": None},
        {"head_dim": None, "hidden_size": None},
    ],
)
def test_what_is_not_plain_or_not_said_has_no_kv_bytes(change):
    found = described(QWEN3 | change).facts
    assert (found.kv_bytes_per_token, found.attention) == (None, None)


def test_a_window_that_is_switched_off_is_none():
    config = QWEN3 | {"sliding_window": 4096, "use_sliding_window": False, "layer_types": ["full_attention"]}
    assert described(config).facts.kv_bytes_per_token == 147456


def test_a_multimodal_model_keeps_its_dimensions_one_level_down():
    found = described({"architectures": ["MistralForCausalLM"], "text_config": QWEN3})
    assert (found.precision, found.facts.context, found.facts.kv_bytes_per_token) == ("bf16", 40960, 147456)


@pytest.mark.parametrize(
    ("change", "precision"),
    [
        ({"dtype": "float16"}, "fp16"),
        ({"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}, "fp8"),
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, "int4"),
        ({"quantization_config": {"quant_method": "compressed-tensors"}}, "compressed-tensors"),
        ({"torch_dtype": None}, "unknown"),
    ],
)
def test_precision(change, precision):
    assert described(QWEN3 | change).precision == precision


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
        ({"tokenizer_config__json": {"chat_template": "old"}, "chat_template__jinja": b"T"}, "T"),
    ],
)
def test_the_template_that_engines_use_is_hashed(files, template):
    assert described(QWEN3, **files).facts.chat_template == (template and sha256(template))


def test_code_of_the_repository_is_refused_by_name():
    config = QWEN3 | {"architectures": ["OwnForCausalLM"], "auto_map": {"AutoModelForCausalLM": "modeling_own.Own"}}
    with pytest.raises(LockError, match="AutoModelForCausalLM") as caught:
        described(config)
    assert "remote code is not supported" in caught.value.hint


def test_code_is_not_needed_where_the_engines_have_the_class():
    config = QWEN3 | {"auto_map": {"AutoModelForCausalLM": "modeling_own.Own"}}
    assert described(config, known={"Qwen3ForCausalLM"}).facts.context == 40960


@pytest.mark.parametrize(
    ("auto_map", "name"), [({"AutoTokenizer": ["x.T", None]}, "AutoTokenizer"), (["x.T", None], "x.T"), ("x.T", "x.T")]
)
def test_code_of_a_tokenizer_is_always_needed(auto_map, name):
    with pytest.raises(LockError, match=name):
        described(QWEN3, known={"Qwen3ForCausalLM"}, tokenizer_config__json={"auto_map": auto_map})


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b"3"])
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
        of_gguf = facts.of_gguf(stream, "tiny.gguf")
    folder = tiny.huggingface(tmp_path / "folder")
    of_folder = facts.of_folder([path.name for path in folder.iterdir()], lambda name: (folder / name).read_bytes(), ())
    assert (of_gguf.precision, of_folder.precision) == ("F16", "bf16")
    assert of_gguf.facts.architecture == "qwen3"
    assert msgspec.structs.replace(of_gguf.facts, architecture="Qwen3ForCausalLM") == of_folder.facts
    assert of_gguf.facts.kv_bytes_per_token == tiny.LAYERS * tiny.KV_HEADS * 2 * tiny.HEAD * 2
    assert of_gguf.facts.chat_template == sha256(tiny.TEMPLATE)


def gguf_facts(path, **keys):
    """Of a GGUF of the architecture qwen3 with two layers and these keys of its own."""
    writer = GGUFWriter(path, "qwen3")
    writer.add_block_count(2)
    writer.add_embedding_length(256)
    writer.add_head_count(4)
    for key, value in keys.items():
        writer.add_key_value(f"qwen3.attention.{key}", value, *kinds(value))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with path.open("rb") as stream:
        return facts.of_gguf(stream, path.name).facts


def kinds(value):
    return (GGUFValueType.ARRAY, GGUFValueType.UINT32) if isinstance(value, list) else (GGUFValueType.UINT32,)


@pytest.mark.parametrize(
    ("keys", "per_token"),
    [
        ({}, 2 * 4 * (64 + 64) * 2),
        ({"head_count_kv": 1}, 2 * 1 * (64 + 64) * 2),
        ({"head_count_kv": [2, 1]}, 3 * (64 + 64) * 2),
        ({"head_count_kv": 1, "key_length": 128, "value_length": 32}, 2 * 1 * (128 + 32) * 2),
        ({"head_count_kv": 1, "sliding_window": 4096}, None),
    ],
)
def test_kv_bytes_of_a_gguf(tmp_path, keys, per_token):
    assert gguf_facts(tmp_path / "x.gguf", **keys).kv_bytes_per_token == per_token


def test_another_file_is_no_gguf():
    with pytest.raises(LockError, match="not a GGUF") as caught:
        facts.of_gguf(BytesIO(b"<!doctype html>"), "x.gguf")
    assert caught.value.where == "x.gguf"


def test_what_is_found_wins_over_what_was_known():
    found = facts.completed(Facts(context=1), Facts(context=2, parameters=3, vllm_args=("--x",)))
    assert found == Facts(context=1, parameters=3, vllm_args=("--x",))
