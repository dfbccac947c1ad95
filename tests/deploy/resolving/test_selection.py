import json

import pytest

from deploy import selection
from deploy.errors import LockError

SPLIT = ["Q4/m-Q4_K_M-00001-of-00002.gguf", "Q4/m-Q4_K_M-00002-of-00002.gguf"]


def index(*shards):
    content = json.dumps({"metadata": {}, "weight_map": {f"t{number}": shard for number, shard in enumerate(shards)}})
    return lambda path: {selection.INDEX: content.encode()}[path]


def unread(path):
    raise AssertionError(f"{path} need not be read")


def refused(call, *arguments):
    with pytest.raises(LockError) as caught:
        call(*arguments)
    return caught.value.message


def test_pickles_code_and_other_formats_are_left_out():
    kept = [
        *("LICENSE", "chat_template.jinja", "config.json", "generation_config.json", "merges.txt"),
        *("model.safetensors", "tokenizer.json", "tokenizer.model", "vocab.json"),
    ]
    others = [
        *("pytorch_model.bin", "pytorch_model.bin.index.json", "model.pth", "tf_model.h5", "onnx/model.onnx"),
        *("consolidated.safetensors", "original/model.safetensors", "modeling_x.py", "README.md", ".gitattributes"),
    ]
    assert selection.safetensors([*others, *reversed(kept)], unread) == tuple(kept)


def test_an_index_says_which_shards():
    paths = ["config.json", selection.INDEX, "model-1.safetensors", "model-2.safetensors", "consolidated.safetensors"]
    found = selection.safetensors(paths, index("model-1.safetensors", "model-2.safetensors"))
    assert "consolidated.safetensors" not in found
    assert {"model-1.safetensors", "model-2.safetensors", selection.INDEX} <= set(found)


def test_an_index_that_names_a_missing_shard_is_refused():
    paths = ["config.json", selection.INDEX, "model-1.safetensors"]
    message = refused(selection.safetensors, paths, index("model-1.safetensors", "../model-2.safetensors"))
    assert "../model-2.safetensors" in message


def test_a_damaged_index_is_refused():
    for content in (b"", b"\xff", b"{}", b'{"weight_map": {"a": 1}}'):
        message = refused(selection.safetensors, [selection.INDEX], lambda _, content=content: content)
        assert "damaged" in message


def test_several_weights_without_an_index_are_ambiguous():
    assert "a.safetensors, b.safetensors" in refused(selection.safetensors, ["a.safetensors", "b.safetensors"], unread)


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["config.json", "model.safetensors"], ("safetensors",)),
        (["adapter_model.safetensors"], ()),
        (["config.json", "pytorch_model.bin"], ()),
        (["a/x.gguf"], ("gguf",)),
        (["mmproj-x.gguf"], ()),
        (["config.json", "model.safetensors", "x.gguf"], ("safetensors", "gguf")),
    ],
)
def test_the_formats_that_are_there(paths, expected):
    assert selection.formats(paths) == expected


def test_one_gguf_needs_no_precision():
    assert selection.gguf(["README.md", "x.gguf", "mmproj-x-f16.gguf"], None) == ("x.gguf",)


def test_several_ggufs_are_listed():
    message = refused(selection.gguf, ["x-Q4_K_M.gguf", "x-Q8_0.gguf"], None)
    assert "x-Q4_K_M.gguf, x-Q8_0.gguf" in message


@pytest.mark.parametrize(
    ("precision", "expected"),
    [("Q8_0", "x-Q8_0.gguf"), ("q4_k_m", "x-Q4_K_M.gguf"), ("F16", "x-F16.gguf"), ("bf16", "x-BF16.gguf")],
)
def test_a_precision_picks_one(precision, expected):
    paths = ["x-Q4_K_M.gguf", "x-Q4_K_S.gguf", "x-Q8_0.gguf", "x-F16.gguf", "x-BF16.gguf"]
    assert selection.gguf(paths, precision) == (expected,)


def test_a_precision_that_is_not_there_or_fits_several():
    paths = ["x-Q4_K_M.gguf", "x-Q4_K_S.gguf"]
    assert "no GGUF of precision `Q8_0`: x-Q4_K_M.gguf" in refused(selection.gguf, paths, "Q8_0")
    assert "several" in refused(selection.gguf, paths, "Q4_K")


def test_a_split_gguf_is_one_with_all_its_parts():
    assert selection.gguf([*reversed(SPLIT), "m-Q8_0.gguf"], "Q4_K_M") == tuple(SPLIT)
    assert selection.siblings(SPLIT[1], [*SPLIT, "m-Q8_0.gguf"]) == tuple(SPLIT)


@pytest.mark.parametrize("missing", [0, 1])
def test_a_split_gguf_with_a_part_missing_is_refused(missing):
    parts = [part for number, part in enumerate(SPLIT) if number != missing]
    assert "2 parts, 1 of them" in refused(selection.gguf, parts, None)
