import random
import re
from pathlib import PurePosixPath

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from deploy import config, decoding, lockfile, soundness
from deploy.dimensions import MOST, Cache, Override, Recurrent, Shape
from deploy.errors import LockError
from deploy.lockfile import (
    EnginePin,
    Facts,
    File,
    Licence,
    Lock,
    Model,
    Origin,
    Passed,
    Place,
    Tensors,
    Variant,
    Wheel,
)

TEXT = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), max_size=20)
OPTIONAL_TEXT = st.none() | TEXT
HEX = "0123456789abcdef"
SHA256 = st.text(HEX, min_size=64, max_size=64)
SHA1 = st.text(HEX, min_size=40, max_size=40)
SIZE = st.integers(0, 2**53)
NAME = st.text("abzAZ09._:/-", max_size=8).map(lambda text: "m" + text)
PART = st.text("abcXYZ019._- ", min_size=1, max_size=8).filter(lambda part: part not in (".", ".."))
# No folder can have the name of a file: the alphabet lacks a letter of the suffix.
PATH = st.lists(PART, min_size=1, max_size=3).map(lambda parts: "/".join(parts) + ".dt")
FILE = st.builds(File, path=PATH, size=SIZE, sha256=SHA256, git=st.none() | SHA1, xet=st.none() | SHA256)
FILES = st.lists(FILE, min_size=1, max_size=3, unique_by=lambda file: file.path).map(tuple)
ORIGIN = st.just(Origin(kind="path")) | st.builds(
    lambda repo, commit, repo_id: Origin(
        kind="huggingface", repo=repo, repo_id=repo_id, commit=commit, purl=f"pkg:huggingface/{repo}@{commit}"
    ),
    st.sampled_from(["org/name", "Qwen/Qwen3-0.6B", "a/b_c.d"]),
    SHA1,
    OPTIONAL_TEXT,
)
LICENCE = st.none() | st.builds(
    Licence,
    id=st.sampled_from(["MIT", "LicenseRef-x", "MIT AND LicenseRef-Llama-3.3"]),
    file=st.none() | PATH,
    text=st.none() | SHA256,
    gated=st.none() | st.booleans(),
)
ELEMENTS = st.dictionaries(st.sampled_from(["BF16", "F8_E4M3", "Q4_K", "a type.of its own"]), SIZE, max_size=3)
TENSORS = st.none() | st.builds(Tensors, count=SIZE, elements=ELEMENTS)
COUNT = st.integers(1, MOST)
FEW = st.integers(1, 1 << 7)
"""Of what is multiplied to the bytes of a token."""
OPTIONAL_COUNT = st.none() | COUNT
RECURRENT = st.builds(
    Recurrent,
    layers=COUNT,
    key_heads=COUNT,
    value_heads=COUNT,
    key_width=COUNT,
    value_width=COUNT,
    kernel=COUNT,
    element_bytes=COUNT,
)
HEADS = {"kv_heads": FEW, "key_width": FEW, "value_width": FEW}
CACHE = st.one_of(
    st.builds(Cache, kind=st.just("gqa"), layers=FEW, **HEADS),
    st.builds(Cache, kind=st.just("gqa"), layers=st.just(0) | FEW, window=COUNT, window_layers=FEW, **HEADS),
    st.builds(Cache, kind=st.just("hybrid-gqa"), layers=FEW, recurrent=st.none() | RECURRENT, **HEADS),
    st.builds(
        Cache,
        kind=st.just("mla"),
        layers=FEW,
        rank=FEW,
        rotary_width=FEW,
        indexer_width=OPTIONAL_COUNT,
        indexer_layers=OPTIONAL_COUNT,
    ),
)
SHAPE = st.builds(Shape, **dict.fromkeys(Shape.__struct_fields__, OPTIONAL_COUNT)).filter(lambda one: one != Shape())
OVERRIDE = st.builds(
    Override,
    generation=st.sampled_from(["ampere", "hopper"]),
    args=st.lists(TEXT, max_size=2).map(tuple),
    env=st.dictionaries(TEXT, TEXT, max_size=2),
    context=OPTIONAL_COUNT,
    slots=OPTIONAL_COUNT,
)
FACTS = st.builds(
    Facts,
    architecture=OPTIONAL_TEXT,
    parameters=st.none() | SIZE,
    context=st.none() | SIZE,
    vllm_args=st.lists(TEXT, max_size=3).map(tuple),
    overrides=st.lists(OVERRIDE, max_size=2).map(tuple),
    cache=st.none() | CACHE,
    shape=st.none() | SHAPE,
)


def variant(files, *, kind="gguf", precision="Q4_K_M", origin=None, facts=None, places=(), **more):
    return Variant(
        format=kind,
        precision=precision,
        size=sum(file.size for file in files),
        tree=soundness.tree_digest(files),
        origin=origin or Origin(kind="path"),
        facts=facts or Facts(),
        files=files,
        places=places,
        **more,
    )


def places(files, kinds):
    """One per kind, as a lock of ours would have it for the first file."""
    wheels = (Wheel(package="a", version="1.0", member="a/0.bin", size=files[0].size, sha256="f" * 64),)
    made = {
        "hub": Place(kind="hub"),
        "file": Place(kind="file", path="x.gguf"),
        "index": Place(kind="index", path=files[0].path, wheels=wheels),
    }
    return tuple(made[kind] for kind in kinds)


WEIGHTS = {
    kind: File(path=path, size=1, sha256="e" * 64)
    for kind, path in (("gguf", "m.gguf"), ("safetensors", "m.safetensors"), ("pickle", "m.bin"))
}
VARIANT = st.builds(
    lambda files, kinds, kind, **more: variant((*files, WEIGHTS[kind]), places=places(files, kinds), kind=kind, **more),
    files=FILES,
    kinds=st.lists(st.sampled_from(["hub", "index", "file"]), max_size=3),
    kind=st.sampled_from(["gguf", "safetensors", "pickle"]),
    precision=TEXT,
    origin=ORIGIN,
    facts=FACTS,
    licence=LICENCE,
    tensors=TENSORS,
    code=st.lists(FILE, max_size=2, unique_by=lambda file: file.path).map(tuple),
)
PASSED = st.builds(Passed, id=TEXT, reason=TEXT, change=TEXT)
MODEL = st.builds(
    Model,
    name=NAME,
    aliases=st.lists(NAME, max_size=2).map(tuple),
    requested=TEXT,
    reason=OPTIONAL_TEXT,
    preferred=OPTIONAL_TEXT,
    passed=st.lists(PASSED, max_size=3).map(tuple),
    variants=st.lists(VARIANT, min_size=1, max_size=2, unique_by=lambda one: one.key).map(tuple),
)
ENGINE = st.builds(EnginePin, name=TEXT, device=st.sampled_from(["gpu", "cpu"]), version=TEXT, requirements=TEXT)


def names(lock):
    return [name for model in lock.models for name in (model.name, *model.aliases)]


LOCK = st.builds(
    Lock,
    generator=TEXT,
    inputs=TEXT,
    models=st.lists(MODEL, min_size=1, max_size=2).map(tuple),
    engines=st.lists(ENGINE, max_size=2, unique_by=lambda pin: (pin.name, pin.device)).map(tuple),
).filter(lambda lock: len(names(lock)) == len(set(names(lock))))

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
ONE_TEXT = lockfile.write(ONE)
B = "b" * 64


def refused(text):
    with pytest.raises(LockError) as caught:
        lockfile.parse(text)
    return caught.value


def line_of(error):
    """The number after the name of the file."""
    assert re.fullmatch(r"models\.lock:\d+", error.where), error.where
    return int(error.where.rpartition(":")[2])


def shuffled(lock, seed):
    """The same lock with everything in another order that has none."""
    mix = random.Random(seed)

    def mixed(items):
        return tuple(mix.sample(items, len(items)))

    def turned(one):
        tensors = one.tensors and msgspec.structs.replace(
            one.tensors, elements=dict(mixed(tuple(one.tensors.elements.items())))
        )
        return msgspec.structs.replace(one, files=mixed(one.files), code=mixed(one.code), tensors=tensors)

    models = [
        msgspec.structs.replace(
            model, aliases=mixed(model.aliases), variants=mixed(tuple(turned(one) for one in model.variants))
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
    with pytest.raises(LockError, match="not UTF-8"):
        lockfile.read(tmp_path / "models.lock")


@pytest.mark.parametrize("version", ['"2.0"', '"1.2"', "1", '""', "[[]]"])
def test_an_unknown_version_is_refused_before_anything_else(version):
    error = refused(ONE_TEXT.replace('lock-version = "1.1"', f"lock-version = {version}") + "\nunknown = 1\n")
    assert "lock-version" in error.message
    assert "upgrade ownweights" in error.hint
    assert line_of(error) == 3


@pytest.mark.parametrize(
    ("old", "new", "marker", "words"),
    [
        ("lock-version", "lock-version =", "lock-version", "not valid TOML"),
        ("size = 8", "size = 8\nsurprise = 1", "surprise", "unknown key 'surprise'"),
        (f'sha256 = "{B}"', f'sha265 = "{B}"', "sha265", "unknown key 'sha265'"),
        ('requested = "file', 'wanted = "file', "wanted", "unknown key 'wanted'"),
        ('name = "chat"\n', "", "[[model]]", "missing required field `name`"),
        (f', sha256 = "{B}"', "", "b.gguf", "missing required field `sha256`"),
        ("size = 5,", 'size = "5",', "b.gguf", "expected `int`, got `str`"),
        ('format = "gguf"', 'format = "onnx"', "format =", "onnx"),
        (B, "b" * 63, "b.gguf", "64 hex digits"),
        (B, "B" * 64, "b.gguf", "64 hex digits"),
        (B, B + "\\n", "b.gguf", "control character"),
        ("c" * 40, "c" * 39 + "g", "config.json", "40 hex digits"),
        ('"b.gguf"', '"pytorch_model.BIN"', "pytorch_model", "is a pickle, gguf has none"),
        ('format = "gguf"', 'format = "safetensors"', "format =", "no file of that format"),
        ('format = "gguf"', 'format = "pickle"', "format =", "no file of that format"),
        ("d" * 40, "e" * 40 + f'"\nrequested = "{"d" * 40}', "commit =", "was asked for"),
        ('"b.gguf"', '"a/config.json"', "a/config.json", "listed twice"),
        ('"b.gguf"', '"a/config.json/x"', "a/config.json/x", "which is a file"),
        ('"b.gguf"', '"model.py"', "model.py", "not the one under `code`"),
        ("size = 5,", "size = -5,", "b.gguf", "between 0 and"),
        ("size = 5,", f"size = {2**61},", "b.gguf", "between 0 and"),
        ("size = 5,", "size = 6,", "size = 8", "add up to 9 bytes"),
        ("size = 8\n", "size = 9\n", "size = 9", "add up to 8 bytes"),
        (B, "e" * 64, "tree =", "one was edited"),
        ("d" * 40, "main", "commit =", "40 hex digits"),
        ("d" * 40, "", "commit =", "40 hex digits"),
        (f'commit = "{"d" * 40}"\n', "", "[model.variant.origin]", "needs `commit`"),
        ("org/name", "../../etc", "repo =", "org/name"),
        ("org/name", "org/a--b", "repo =", "org/name"),
        ('commit = "', 'purl = "pkg:huggingface/org/other@1"\ncommit = "', "purl =", "another repository"),
        ('commit = "', 'requested = "a/../b"\ncommit = "', "a/../b", "a branch, tag or commit"),
        ('commit = "', 'repo-id = "\\u001b[31m"\ncommit = "', "repo-id", "control character"),
        ('name = "chat"', 'name = "a b"', 'name = "a b"', "model name"),
        ('name = "chat"', 'name = "chat"\naliases = ["x",\n"chat"]', '"chat"]', "used twice"),
    ],
)
def test_a_tampered_lock_is_refused_with_its_line(old, new, marker, words):
    text = ONE_TEXT.replace(old, new)
    assert text != ONE_TEXT
    error = refused(text)
    assert words in error.message
    assert error.hint
    assert marker in text.splitlines()[line_of(error) - 1]


DIMENSIONS = Facts(
    cache=Cache(
        kind="hybrid-gqa",
        layers=12,
        kv_heads=2,
        key_width=256,
        value_width=255,
        window=128,
        window_layers=3,
        recurrent=Recurrent(layers=36, key_heads=16, value_heads=32, key_width=127, value_width=126, kernel=4),
    ),
    shape=Shape(layers=48, experts=512),
    overrides=(Override(generation="hopper", context=200_000),),
)


def with_facts(facts):
    """The text of a lock with these."""
    one = msgspec.structs.replace(ONE.models[0].variants[0], facts=facts)
    model = msgspec.structs.replace(ONE.models[0], variants=(one,))
    return lockfile.write(msgspec.structs.replace(ONE, models=(model,)))


@pytest.mark.parametrize(
    ("old", "new", "marker", "words"),
    [
        ("layers = 12", "layers = -12", "layers =", "between 0 and"),
        ("layers = 12", f"layers = {10**30}", "layers =", "between 0 and"),
        ("layers = 12", f"layers = {MOST + 1}", "layers =", "`layers` must be between 0 and 4294967296"),
        ("layers = 12", "layers = 1.5", "layers =", "expected `int`, got `float`"),
        ("key-width = 256", "key-width = 0", "key-width =", "`key-width` must be between 1 and"),
        ("value-width = 255\n", "", "facts.cache]", "a cache of kind hybrid-gqa needs `value-width`"),
        ('kind = "hybrid-gqa"', 'kind = "mla"', "facts.cache]", "a cache of kind mla needs `rank`"),
        ('kind = "hybrid-gqa"', 'kind = "magic"', "kind =", "magic"),
        ("layers = 12", f"layers = {MOST}", "facts.cache]", "at most 1073741824 bytes per token"),
        ("window-layers = 3", f"window-layers = {MOST}", "facts.cache]", "at most 1073741824 bytes per token"),
        ("window-layers = 3", "window-layers = 0", "facts.cache]", "need each other"),
        ("window = 128\n", "", "facts.cache]", "need each other"),
        ("key-width = 127", "key-width = 0", "key-width = 0", "`key-width` must be between 1 and"),
        ("layers = 36", "layers = 0", "layers = 0", "`layers` must be between 1 and"),
        ("experts = 512", "experts = 0", "experts =", "`experts` must be between 1 and"),
        ("context = 200000", "context = 0", "generation =", "`context` must be between 1 and"),
    ],
)
def test_dimensions_that_no_model_has_are_refused_with_their_line(old, new, marker, words):
    text = with_facts(DIMENSIONS)
    assert lockfile.parse(text).models[0].variants[0].facts == DIMENSIONS
    assert old in text
    edited = text.replace(old, new, 1)
    error = refused(edited)
    assert words in error.message
    assert marker in edited.splitlines()[line_of(error) - 1]


def test_a_cache_without_layers_is_refused():
    empty = msgspec.structs.replace(DIMENSIONS.cache, layers=0, window=None, window_layers=0)
    assert "a cache without layers" in refused(with_facts(Facts(cache=empty))).message


def test_the_second_of_two_is_named():
    lines = ONE_TEXT.splitlines()

    def again(start):
        return refused("\n".join([*lines, *lines[lines.index(start) :]]))

    assert "`chat` is used twice" in again("[[model]]").message
    assert line_of(again("[[model]]")) == len(lines) + 2
    assert "gguf/Q4_K_M twice" in again("[[model.variant]]").message
    assert line_of(again("[[model.variant]]")) == len(lines) + 3
    file = next(index for index, line in enumerate(lines) if "b.gguf" in line)
    error = refused("\n".join([*lines[:file], lines[file], *lines[file:]]))
    assert "`b.gguf` is listed twice" in error.message
    assert line_of(error) == file + 2
    engine = '[[engine]]\nname = "e"\ndevice = "cpu"\nversion = "1"\nrequirements = "x"\n'
    assert line_of(refused(f"{ONE_TEXT}{engine}{engine}")) == len(lines) + 6


def test_an_unknown_key_comes_with_the_nearest():
    assert (
        refused(ONE_TEXT.replace(f'sha256 = "{B}"', f'sha265 = "{B}"')).hint
        == f"{lockfile.RESTORE} (did you mean `sha256`?)"
    )
    assert f"{lockfile.RESTORE} (known here: kind, repo" in refused(ONE_TEXT.replace("commit =", "zzz =")).hint


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ('kind = "index"\npath = "other"', "no file of"),
        ('kind = "index"\npath = "b.gguf"', "do not add up"),
        ('kind = "file"', "needs `path`"),
        *(
            (f'kind = "index"\npath = "b.gguf"\nwheels = [{{ {wheel}, size = 5 }}]', words)
            for wheel, words in [
                (f'package = "a b", version = "1", member = "x", sha256 = "{B}"', "name of a package"),
                (f'package = "a", version = "1 --pre", member = "x", sha256 = "{B}"', "version of a package"),
                (f'package = "a", version = "1", member = "../x", sha256 = "{B}"', "unsafe path"),
                ('package = "a", version = "1", member = "x", sha256 = "b"', "64 hex digits"),
            ]
        ),
    ],
)
def test_a_place_that_leads_elsewhere_is_refused(place, words):
    error = refused(f"{ONE_TEXT}\n[[model.variant.places]]\n{place}\n")
    assert words in error.message
    assert line_of(error) > len(ONE_TEXT.splitlines())


@pytest.mark.parametrize(
    "path",
    ["../x", "/etc/passwd", "a/../../x", "a//b", "./a", "a/", "", ".", "..", "a\\\\b", "x" * 256, "x/" * 512 + "x"],
)
def test_an_unsafe_path_is_refused(path):
    assert "unsafe path" in refused(ONE_TEXT.replace('"b.gguf"', f'"{path}"')).message


@given(st.text(max_size=30))
def test_a_safe_path_stays_in_its_folder(path):
    if soundness.is_safe(path):
        joined = PurePosixPath("/base") / path
        assert joined.is_relative_to("/base")
        assert joined != PurePosixPath("/base")
        assert ".." not in joined.parts
        assert "\0" not in path


def test_a_variant_without_files_is_refused():
    text = re.sub(r"files = \[.*?\n\]", "files = []", ONE_TEXT, flags=re.DOTALL)
    assert "no files" in refused(text).message


def test_code_among_the_files_must_be_what_was_allowed():
    def locked(allowed):
        code = File(path="modeling.py", size=1, sha256="1" * 64)
        files = (*ONE.models[0].variants[0].files, code)
        one = variant(files, code=(msgspec.structs.replace(code, sha256=allowed),))
        model = msgspec.structs.replace(ONE.models[0], variants=(one,))
        return lockfile.write(msgspec.structs.replace(ONE, models=(model,)))

    lockfile.parse(locked("1" * 64))
    assert "`modeling.py` is not the one under `code`" in refused(locked("2" * 64)).message


def test_a_lock_that_is_too_long_is_refused_before_it_is_read_in_full(tmp_path):
    path = tmp_path / "models.lock"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(LockError, match="longer than"):
        lockfile.read(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (".".join("a" * 30000) + " = 1", "too many parts"),
        ("[" + ".".join("a" * 30000) + "]", "too many parts"),
        ('"=".' + ".".join("a" * 30000) + " = 1", "too many parts"),
        ("x = {" + ".".join("a" * 30000) + " = 1}", "too many parts"),
        ('x = {y = """\n""", ' + ".".join("a" * 30000) + ' = 1, z = ""}', "too many parts"),
        ("x = {y = '''\n''', " + ".".join("a" * 30000) + " = 1, z = ''}", "too many parts"),
        ('\\"""\n' * 200_000 + "..........", "not valid TOML"),
        ("a = [\n" + "[\n" * 10000, "without end"),
        ("a = 1" + "0" * 5000, "not valid TOML"),
        ("#" * (1 << 17), "too long"),
        ("#" + "." * (1 << 17), "too long"),
    ],
    ids=[
        "key",
        "header",
        "quoted",
        "inline",
        "after-text",
        "after-literal",
        "unended",
        "nested",
        "number",
        "line",
        "dots",
    ],
)
def test_what_would_keep_a_reader_busy_is_refused(text, words):
    assert words in refused(text).message


def test_dots_in_strings_and_comments_are_no_keys():
    dots = "." * 20
    text = f'a.b = ["{dots}", \'{dots}\', """\n{dots}""", \'\'\'{dots}\'\'\', "\\"{dots}"] # {dots}\n# {dots}\n'
    assert decoding.tables(text)["a"]["b"] == [dots, dots, dots, dots, f'"{dots}']


SLIPS = (
    lambda line: re.sub(r'(sha256|git|commit) = "[0-9a-f]', r'\1 = "g', line, count=1),
    lambda line: re.sub(r"^( *{ )?(name|size|path|kind|files) =", r"\1\2x =", line),
    lambda line: re.sub(r'sha256 = "..', lambda at: at[0][:-2] + ("00" if at[0][-2:] != "00" else "11"), line),
    lambda line: re.sub(r"size = \d", "size = -1", line, count=1),
    lambda line: re.sub(r'{ path = "', '{ path = "../', line),
    lambda line: re.sub(r"^(\w+) = ", r"\1 = = ", line),
)


@given(LOCK, st.sampled_from(SLIPS), st.data())
def test_the_line_named_is_the_one_that_was_edited(lock, slip, data):
    """Or, where only a sum shows it, that sum in the same table; or the table's header, for what is missing."""
    lines = lockfile.write(lock).split("\n")
    trees = {soundness.tree_digest(one.files) for model in lock.models for one in model.variants}
    for at in data.draw(st.lists(st.integers(2, len(lines) - 1), max_size=3)):
        lines.insert(at, data.draw(st.sampled_from(["", "# [[model]] size = 3", "  # it's"])))
    can_slip = [at for at, line in enumerate(lines) if not line.lstrip().startswith("#") and slip(line) != line]
    assume(can_slip)
    at = data.draw(st.sampled_from(can_slip))
    lines[at] = slip(lines[at])
    try:
        found = lockfile.parse("\n".join(lines))
    except LockError as caught:
        error = caught
    else:
        # Hashes of wheels and of code that is not fetched decide about no bytes.
        assert {soundness.tree_digest(one.files) for model in found.models for one in model.variants} == trees
        return
    header = max(index for index in range(at + 1) if index == 0 or lines[index].startswith("["))
    end = next((index for index in range(at + 1, len(lines)) if lines[index].startswith("[")), len(lines))
    sums = [index for index in range(header, end) if re.match("(tree|size) =", lines[index])]
    assert line_of(error) - 1 in (at, header, *sums), error


@given(st.text(max_size=200) | LOCK.map(lockfile.write), st.randoms(use_true_random=False))
def test_whatever_is_read_is_a_lock_or_one_error(text, mix):
    junk = ["", '"', "'''", "[", "]", "{", "}", "\n", "=", "#", ".", "\r", "\0", "9" * 30, "a.b = 1", "\ud800"]
    for _ in range(mix.randrange(1, 6)):
        at, length = mix.randrange(len(text) + 1), mix.choice([0, 1, 5, 60])
        text = text[:at] + mix.choice(junk) + text[at + length :]
    try:
        lock = lockfile.parse(text)
    except LockError:
        return
    assert lockfile.parse(lockfile.write(lock)).digest == lock.digest


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
