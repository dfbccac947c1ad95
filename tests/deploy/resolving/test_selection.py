import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.errors import LockError
from deploy.resolving import selection

SPLIT = ["Q4/m-Q4_K_M-00001-of-00002.gguf", "Q4/m-Q4_K_M-00002-of-00002.gguf"]


def index(*shards):
    return indexed(selection.INDEX, *shards)


def indexed(name, *shards):
    content = json.dumps({"metadata": {}, "weight_map": {f"t{number}": shard for number, shard in enumerate(shards)}})
    return lambda path: {name: content.encode()}[path]


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


@pytest.mark.parametrize(
    "name",
    ["LICENSE", "LICENCE.txt", "License.md", "COPYING", "NOTICE", "LICENSE-2.0.txt", "USE_POLICY.md", "README-LICENSE"],
)
def test_legal_texts_belong_to_it(name):
    assert selection.legal([name, "README.md", "config.json"]) == (name,)


@pytest.mark.parametrize(
    "name", ["LICENSE.safetensors", "license.py", "LICENSE.gguf", "licences/x", "licensed_data.csv", "notices.bin"]
)
def test_what_an_engine_might_load_is_no_legal_text(name):
    assert selection.legal([name]) == ()


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        ([], None),
        (["NOTICE", "USE_POLICY.md"], None),
        (["NOTICE", "LICENSE"], "LICENSE"),
        (["LICENSE-CODE", "LICENSE-MODEL"], "LICENSE-MODEL"),
        (["LICENSE-CODE", "LICENSE"], "LICENSE"),
        (["COPYING", "LICENCE", "LICENSE.txt"], "LICENSE.txt"),
        (["LICENSE.md", "LICENSE"], "LICENSE"),
    ],
)
def test_which_text_is_the_licence_of_the_weights(paths, expected):
    assert selection.licence(paths) == expected
    assert selection.licence(paths[::-1]) == expected


def test_pickles_are_one_file_or_what_their_index_names():
    texts = ["LICENSE", "config.json", "tokenizer.json"]
    one = ["pytorch_model.bin", "training_args.bin", "optimizer.bin", *texts]
    assert selection.pickles(one, unread) == ("LICENSE", "config.json", "pytorch_model.bin", "tokenizer.json")
    shards = [f"pytorch_model-0000{number}-of-00002.bin" for number in (1, 2)]
    found = selection.pickles([selection.PICKLE_INDEX, *shards, *texts], indexed(selection.PICKLE_INDEX, *shards))
    assert found == ("LICENSE", "config.json", *shards, selection.PICKLE_INDEX, "tokenizer.json")


@pytest.mark.parametrize("named", [["training_args.bin"], ["pytorch_model.bin", "x.pth"]])
def test_an_index_of_pickles_names_nothing_else(named):
    paths = [selection.PICKLE_INDEX, "config.json", "pytorch_model.bin", "training_args.bin", "x.pth"]
    assert "neither one" in refused(selection.pickles, paths, indexed(selection.PICKLE_INDEX, *named))


def test_shards_of_pickles_without_an_index_are_ambiguous():
    assert "neither one" in refused(selection.pickles, ["config.json", "pytorch_model-00001-of-00002.bin"], unread)


def test_an_index_says_which_shards():
    paths = ["config.json", selection.INDEX, "model-1.safetensors", "model-2.safetensors", "consolidated.safetensors"]
    found = selection.safetensors(paths, index("model-1.safetensors", "model-2.safetensors"))
    assert "consolidated.safetensors" not in found
    assert {"model-1.safetensors", "model-2.safetensors", selection.INDEX} <= set(found)


def test_an_index_that_names_a_missing_shard_is_refused():
    paths = ["config.json", selection.INDEX, "model-1.safetensors"]
    message = refused(selection.safetensors, paths, index("model-1.safetensors", "../model-2.safetensors"))
    assert "../model-2.safetensors" in message


def test_an_index_of_safetensors_names_nothing_else():
    paths = ["config.json", selection.INDEX, "model-1.safetensors", "pytorch_model.bin"]
    message = refused(selection.safetensors, paths, index("model-1.safetensors", "pytorch_model.bin"))
    assert "no safetensors: pytorch_model.bin" in message


def test_a_damaged_index_is_refused():
    for content in (b"", b"\xff", b"{}", b'{"weight_map": {"a": 1}}', b'{"a":' * 100_000):
        message = refused(selection.safetensors, [selection.INDEX], lambda _, content=content: content)
        assert "damaged" in message


def test_several_weights_without_an_index_are_ambiguous():
    assert "a.safetensors, b.safetensors" in refused(selection.safetensors, ["a.safetensors", "b.safetensors"], unread)


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["config.json", "model.safetensors"], ("safetensors",)),
        (["adapter_model.safetensors"], ()),
        (["config.json", "pytorch_model.bin"], ("pickle",)),
        (["config.json", "pytorch_model-00001-of-00002.bin"], ("pickle",)),
        (["pytorch_model.bin"], ()),
        (["config.json", "training_args.bin", "model.pt"], ()),
        (["config.json", "pytorch_model.bin", "model.safetensors"], ("safetensors",)),
        (["config.json", "pytorch_model.bin", "x.gguf"], ("gguf",)),
        (["a/x.gguf"], ("gguf",)),
        (["mmproj-x.gguf"], ()),
        (["config.json", "model.safetensors", "x.gguf"], ("safetensors", "gguf")),
    ],
)
def test_the_formats_that_are_there(paths, expected):
    assert selection.formats(paths) == expected


def test_precisions_are_named_by_label_or_path():
    assert selection.precisions([*SPLIT, "x-Q8_0.gguf", "x.gguf", "mmproj-x-F16.gguf"]) == ("Q4_K_M", "Q8_0", "x.gguf")


def test_a_companion_alone_is_no_model():
    assert "no GGUF of a model" in refused(selection.gguf, ["mmproj-x.gguf"], None)


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


NAMES = st.sampled_from(
    [
        *("config.json", "model.safetensors", selection.INDEX, "model-00001-of-00002.safetensors", "LICENSE"),
        *("pytorch_model.bin", selection.PICKLE_INDEX, "tokenizer.json", "modeling_x.py", "Q4/x-Q4_K_M.gguf"),
        *("x-Q4_0-00001-of-00002.gguf", "x-Q4_0-00002-of-00002.gguf", "-00001-of-00000.gguf", ".gguf", "mmproj.gguf"),
    ]
)
PATHS = st.lists(NAMES | st.text(max_size=30) | st.text(max_size=10).map("{}.gguf".format), unique=True)


@given(
    PATHS,
    st.none() | st.text(max_size=8),
    st.binary(max_size=50) | st.just(b'{"weight_map": {"a": "model.safetensors"}}'),
)
def test_of_any_paths_something_that_is_there_is_chosen_or_refused(paths, precision, content):
    assert set(selection.formats(paths)) <= {"safetensors", "gguf", "pickle"}
    assert set(selection.legal(paths)) <= set(paths)
    for choose in (
        lambda: selection.gguf(paths, precision),
        lambda: selection.safetensors(paths, lambda _: content),
        lambda: selection.pickles(paths, lambda _: content),
    ):
        with contextlib.suppress(LockError):
            found = choose()
            assert set(found) <= set(paths)
            assert not [path for path in found if path.endswith(".py")]
