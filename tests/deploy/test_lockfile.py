import random
import re
from pathlib import PurePosixPath

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy import config, lockfile
from deploy.errors import LockError
from deploy.lockfile import (
    EnginePin,
    Facts,
    File,
    Licence,
    Lock,
    Model,
    Origin,
    Place,
    Tensors,
    Variant,
    Wheel,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
OPTIONAL_TEXT = st.none() | TEXT
HEX = "0123456789abcdef"
SHA256 = st.text(HEX, min_size=64, max_size=64)
SHA1 = st.text(HEX, min_size=40, max_size=40)
SIZE = st.integers(0, 2**53)
PART = st.text("abcXYZ019._- ", min_size=1, max_size=8).filter(lambda part: part not in (".", ".."))
PATH = st.lists(PART, min_size=1, max_size=3).map("/".join)
FILE = st.builds(File, path=PATH, size=SIZE, sha256=SHA256, git=st.none() | SHA1)
WHEEL = st.builds(Wheel, package=TEXT, version=TEXT, member=TEXT, size=SIZE, sha256=SHA256)
PLACE = st.builds(
    Place,
    kind=st.sampled_from(["hub", "index", "file"]),
    path=OPTIONAL_TEXT,
    wheels=st.lists(WHEEL, max_size=2).map(tuple),
)
ORIGIN = st.builds(
    Origin,
    kind=st.sampled_from(["huggingface", "path"]),
    repo=OPTIONAL_TEXT,
    requested=OPTIONAL_TEXT,
    commit=st.none() | SHA1,
)
LICENCE = st.none() | st.builds(
    Licence, id=TEXT, file=OPTIONAL_TEXT, text=st.none() | SHA256, gated=st.none() | st.booleans()
)
ELEMENTS = st.dictionaries(st.sampled_from(["BF16", "F8_E4M3", "Q4_K"]), SIZE, max_size=3)
TENSORS = st.none() | st.builds(Tensors, count=SIZE, elements=ELEMENTS)
FACTS = st.builds(
    Facts,
    architecture=OPTIONAL_TEXT,
    parameters=st.none() | SIZE,
    context=st.none() | SIZE,
    kv_bytes_per_token=st.none() | SIZE,
    vllm_args=st.lists(TEXT, max_size=3).map(tuple),
)


def variant(files, *, kind="gguf", precision="Q4_K_M", origin=None, facts=None, places=(), **more):
    return Variant(
        format=kind,
        precision=precision,
        size=sum(file.size for file in files),
        tree=lockfile.tree_digest(files),
        origin=origin or Origin(kind="path"),
        facts=facts or Facts(),
        files=files,
        places=places,
        **more,
    )


VARIANT = st.builds(
    variant,
    files=st.lists(FILE, min_size=1, max_size=3, unique_by=lambda file: file.path).map(tuple),
    kind=st.sampled_from(["gguf", "safetensors", "pickle"]),
    precision=TEXT,
    origin=ORIGIN,
    facts=FACTS,
    licence=LICENCE,
    tensors=TENSORS,
    code=st.lists(FILE, max_size=2).map(tuple),
    places=st.lists(PLACE, max_size=2).map(tuple),
)
MODEL = st.builds(
    Model,
    name=TEXT,
    aliases=st.lists(TEXT, max_size=2).map(tuple),
    requested=TEXT,
    reason=OPTIONAL_TEXT,
    variants=st.lists(VARIANT, min_size=1, max_size=2, unique_by=lambda one: one.key).map(tuple),
)
ENGINE = st.builds(EnginePin, name=TEXT, device=st.sampled_from(["gpu", "cpu"]), version=TEXT, requirements=TEXT)
LOCK = st.builds(
    Lock,
    generator=TEXT,
    inputs=TEXT,
    models=st.lists(MODEL, min_size=1, max_size=2, unique_by=lambda one: one.name).map(tuple),
    engines=st.lists(ENGINE, max_size=2, unique_by=lambda pin: (pin.name, pin.device)).map(tuple),
)

ONE = Lock(
    generator="test",
    inputs="sha256:0",
    models=(
        Model(
            name="chat",
            requested="file:x.gguf",
            variants=(
                variant(
                    (
                        File(path="b.gguf", size=5, sha256="b" * 64),
                        File(path="a/config.json", size=3, sha256="a" * 64, git="c" * 40),
                    ),
                    origin=Origin(kind="huggingface", repo="org/name", commit="d" * 40),
                ),
            ),
        ),
    ),
)


def refused(text):
    with pytest.raises(LockError) as caught:
        lockfile.parse(text)
    return caught.value


def shuffled(lock, seed):
    """The same lock with everything in another order that has none."""
    mix = random.Random(seed)

    def mixed(items):
        return tuple(mix.sample(items, len(items)))

    models = [
        msgspec.structs.replace(
            model,
            aliases=mixed(model.aliases),
            variants=mixed(tuple(msgspec.structs.replace(one, files=mixed(one.files)) for one in model.variants)),
        )
        for model in lock.models
    ]
    return msgspec.structs.replace(lock, models=mixed(models), engines=mixed(lock.engines))


@given(LOCK)
def test_what_is_written_is_read_again_and_written_the_same(lock):
    text = lockfile.write(lock)
    again = lockfile.parse(text)
    assert lockfile.write(again) == text
    assert again.digest == lock.digest
    by_name = {model.name: model for model in again.models}
    for model in lock.models:
        read = by_name[model.name]
        assert sorted(read.aliases) == sorted(model.aliases)
        assert (read.requested, read.reason) == (model.requested, model.reason)
        found = {one.key: one for one in read.variants}
        for one in model.variants:
            assert (found[one.key].facts, found[one.key].origin) == (one.facts, one.origin)
            assert found[one.key].places == one.places
            assert set(found[one.key].files) == set(one.files)


@given(LOCK, st.integers())
def test_order_does_not_change_a_byte(lock, seed):
    assert lockfile.write(shuffled(lock, seed)) == lockfile.write(lock)


def test_every_file_has_one_line():
    lines = lockfile.write(ONE).splitlines()
    assert [line for line in lines if "sha256 =" in line] == [
        f'  {{ path = "a/config.json", size = 3, sha256 = "{"a" * 64}", git = "{"c" * 40}" }},',
        f'  {{ path = "b.gguf", size = 5, sha256 = "{"b" * 64}" }},',
    ]


def test_a_file_on_disk(tmp_path):
    path = tmp_path / "models.lock"
    path.write_text(lockfile.write(ONE))
    assert lockfile.read(path).model("chat").variants[0].size == 8


def test_a_missing_lock_names_the_command(tmp_path):
    with pytest.raises(LockError) as caught:
        lockfile.read(tmp_path / "models.lock")
    assert caught.value.hint == "ownweights lock"


def test_other_bytes_are_one_error(tmp_path):
    (tmp_path / "models.lock").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LockError, match="cannot be read"):
        lockfile.read(tmp_path / "models.lock")


@pytest.mark.parametrize("version", ['"2.0"', '"1.1"', "1", '""'])
def test_an_unknown_version_is_refused_before_anything_else(version):
    text = lockfile.write(ONE).replace('lock-version = "1.0"', f"lock-version = {version}")
    assert "lock-version" in refused(text + "\nunknown = 1\n").message


def test_an_unknown_key_is_refused():
    assert "surprise" in refused(lockfile.write(ONE).replace("size = 8", "size = 8\nsurprise = 1")).message


@pytest.mark.parametrize(
    "path", ["../x", "/etc/passwd", "a/../../x", "a//b", "./a", "a/", "", ".", "..", "a\\\\b", "a\\u0000b"]
)
def test_an_unsafe_path_is_refused(path):
    assert "unsafe path" in refused(lockfile.write(ONE).replace('"b.gguf"', f'"{path}"')).message


@given(st.text(max_size=30))
def test_a_safe_path_stays_in_its_folder(path):
    if lockfile.is_safe(path):
        joined = PurePosixPath("/base") / path
        assert joined.is_relative_to("/base")
        assert joined != PurePosixPath("/base")
        assert ".." not in joined.parts


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("b.gguf", "a/config.json", "one twice"),
        ("b" * 64, "b" * 63, "malformed"),
        ("b" * 64, "B" * 64, "malformed"),
        ("b" * 64, "b" * 64 + "\\n", "malformed"),
        ("c" * 40, "c" * 39 + "g", "malformed"),
        ("size = 5,", "size = -5,", "malformed"),
        ("d" * 40, "main", "40 hex digits"),
        ("size = 5,", "size = 6,", "do not add up"),
        ("b" * 64, "e" * 64, "do not add up"),
        ("size = 8\n", "size = 9\n", "do not add up"),
        ('format = "gguf"', 'format = "onnx"', "format"),
        ('name = "chat"\n', "", "name"),
        ("lock-version", "lock-version =", "not valid TOML"),
    ],
)
def test_a_tampered_lock_is_refused(old, new, words):
    text = lockfile.write(ONE)
    assert old in text
    error = refused(text.replace(old, new))
    assert words in error.message
    assert error.hint


def test_a_variant_without_files_is_refused():
    text = re.sub(r"files = \[.*?\n\]", "files = []", lockfile.write(ONE), flags=re.DOTALL)
    assert "no files" in refused(text).message


@given(st.data())
def test_no_single_changed_character_is_read_as_other_files(data):
    """It is refused, or it is in a part that decides about no bytes."""
    text = lockfile.write(ONE)
    at = data.draw(st.integers(0, len(text) - 1))
    changed = text[:at] + data.draw(st.characters(exclude_categories=["Cs"])) + text[at + 1 :]
    try:
        found = lockfile.parse(changed)
    except LockError:
        return
    files = found.models[0].variants[0].files
    assert {(file.path, file.size, file.sha256) for file in files} == {
        ("a/config.json", 3, "a" * 64),
        ("b.gguf", 5, "b" * 64),
    }


def test_a_model_is_found_by_name_and_alias():
    lock = msgspec.structs.replace(ONE, models=(msgspec.structs.replace(ONE.models[0], aliases=("default",)),))
    assert lock.model("default") is lock.model("chat")
    with pytest.raises(LockError) as caught:
        lock.model("x")
    assert "chat" in caught.value.hint


def test_inputs_are_what_decides_about_bytes():
    def digest(text):
        return lockfile.inputs_digest(config.parse(text))

    plain = digest('[[model]]\nname = "a"\nsource = "x"')
    assert digest('[[model]]\nname = "a"\nsource = "x"\nslots = 3\n[server]\nport = 9000') == plain
    assert digest('[[model]]\nname = "a"\nsource = "y"') != plain
    assert digest('[[model]]\nname = "a"\nsource = "x"\nprecision = "Q8_0"') != plain
    two = '[[model]]\nname = "a"\n[[model]]\nname = "b"'
    assert digest(two) == digest('[[model]]\nname = "b"\n[[model]]\nname = "a"')
