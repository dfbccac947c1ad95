from hypothesis import given
from hypothesis import strategies as st

from deploy.dimensions import MOST, Shape
from deploy.lockfile import Tensors
from deploy.resolving import gguf_header, shape
from tests import tiny

GLM_4_5_AIR = {
    "num_hidden_layers": 46,
    "hidden_size": 4096,
    "num_attention_heads": 96,
    "vocab_size": 151552,
    "intermediate_size": 10944,
    "n_routed_experts": 128,
    "moe_intermediate_size": 1408,
}


def of(config):
    return shape.of_config(config, config)


def header(lengths=None, **values):
    named = {f"qwen3.{key.replace('__', '.')}": value for key, value in values.items()}
    return gguf_header.Header(values=named, lengths=lengths or {}, tensors=Tensors(count=0))


def test_of_a_configuration():
    assert of(GLM_4_5_AIR) == Shape(
        layers=46, hidden=4096, heads=96, vocabulary=151552, inner=10944, experts=128, expert_inner=1408
    )


def test_where_all_layers_have_experts_the_inner_width_is_theirs():
    found = of({"num_local_experts": 8, "intermediate_size": 14336})
    assert found == Shape(experts=8, expert_inner=14336)


def test_a_width_of_dense_layers_that_are_never_built_is_none():
    moe = {"num_experts": 128, "moe_intermediate_size": 768, "intermediate_size": 6144}
    every = moe | {"mlp_only_layers": [], "decoder_sparse_step": 1}
    assert of(every) == Shape(experts=128, expert_inner=768)
    for some in ({"mlp_only_layers": [0]}, {"decoder_sparse_step": 2}):
        found = of(every | some)
        assert found is not None
        assert found.inner == 6144


def test_of_a_gguf_as_of_the_folder_that_it_was_made_from(tmp_path):
    with tiny.gguf(tmp_path / "tiny.gguf").open("rb") as stream:
        found = shape.of_gguf("qwen3", gguf_header.read(stream))
    assert found == Shape(
        layers=tiny.LAYERS,
        hidden=tiny.HIDDEN,
        heads=tiny.HEADS,
        inner=tiny.INNER,
        vocabulary=len(tiny.vocabulary().tokens) + len(tiny.vocabulary().added),
    )


def test_a_stated_vocabulary_counts_where_no_tokens_are_listed():
    assert shape.of_gguf("qwen3", header(vocab_size=100)) == Shape(vocabulary=100)
    assert shape.of_gguf("qwen3", header({"tokenizer.ggml.tokens": 99}, vocab_size=100)) == Shape(vocabulary=99)


def test_blocks_that_guess_the_token_after_the_next_are_no_layers():
    assert shape.of_gguf("qwen3", header(block_count=47, nextn_predict_layers=1)) == Shape(layers=46)
    assert shape.of_gguf("qwen3", header(block_count=1, nextn_predict_layers=1)) is None


def test_scales_of_blocks_wherever_they_are_named():
    quantized = {"quantization_config": {"weight_block_size": [128, 64]}}
    assert shape.of_config({}, quantized) == shape.of_config(quantized, {}) == Shape(quantized_block=128)
    for size in ([], [True], ["128"], [[128]], [0], 128, None):
        assert shape.of_config({}, {"quantization_config": {"weight_block_size": size}}) is None


def test_nothing_said_is_nothing_known():
    assert of({}) is None
    assert shape.of_gguf(None, header(block_count=3)) is None


ODD = st.none() | st.booleans() | st.integers(-1, 2**70) | st.floats() | st.text() | st.lists(st.integers())
KEYS = st.sampled_from([*GLM_4_5_AIR, "num_experts", "num_local_experts", "quantization_config"])


@given(st.dictionaries(KEYS, ODD | st.dictionaries(st.just("weight_block_size"), ODD)))
def test_no_configuration_makes_it_fail(config):
    found = of(config)
    assert found != Shape()
    known = [getattr(found, name) for name in Shape.__struct_fields__] if found else []
    assert all(type(count) is int and 1 <= count <= MOST for count in known if count is not None)
