"""What counts as which kind of change, without a command around it. The Hub of these tests serves old and new."""

from __future__ import annotations

import json
from collections.abc import Iterator

import msgspec
import pytest

from deploy.changes import drift, drift_lines
from deploy.changes.contents import Contents
from deploy.changes.drift import Change, Drift
from deploy.dimensions import Cache, Override, Recurrent, Shape
from deploy.lockfile import Facts, File, Licence, Model, Origin, Tensors, Variant
from deploy.soundness import tree_digest
from tests import hubserver, locked
from tests.hubserver import Hub, Repo

OLD, NEW = "a" * 40, "b" * 40
WEIGHTS = {"model.safetensors": b"w"}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hubserver.hub([]) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


def compared(server: Hub, old: dict[str, bytes], new: dict[str, bytes]) -> tuple[Change, ...]:
    """Two commits of one repository, weights added."""
    repos = [Repo("org/tiny", OLD, WEIGHTS | old), Repo("org/tiny", NEW, WEIGHTS | new)]
    for repo in repos:
        server.move(repo)
    before, after = (Contents(locked.of(repo)) for repo in repos)
    return drift.compare(before, after)


def variant(**changes: object) -> Variant:
    files = (File(path="model.safetensors", size=1, sha256="0" * 64),)
    plain = Variant(
        format="safetensors",
        precision="bf16",
        size=1,
        tree=tree_digest(files),
        origin=Origin(kind="huggingface", repo="org/tiny", repo_id="1", requested="main", commit=OLD),
        licence=Licence(id="MIT", gated=False),
        facts=Facts(context=10),
        tensors=Tensors(count=1, elements={"BF16": 1}),
        files=files,
    )
    return msgspec.structs.replace(plain, **changes)


def of(old: Variant, new: Variant) -> dict[str, dict[str, tuple[str | None, str | None]]]:
    """Group → key → before and after, of what follows from the files. Nothing is read, because none changed."""
    return {
        change.group: {value.key: (value.before, value.after) for value in change.values}
        for change in drift.compare(Contents(old), Contents(new))
    }


@pytest.mark.parametrize(
    ("path", "group"),
    [
        ("modeling_x.py", "code"),
        ("sub/tokenizer.py", "code"),
        ("LICENSE", "licence"),
        ("USE_POLICY.md", "licence"),
        ("model-00001-of-00002.safetensors", "weights"),
        ("model.safetensors.index.json", "weights"),
        ("x-Q4_K_M.gguf", "weights"),
        ("pytorch_model.bin", "weights"),
        ("tokenizer.json", "tokenizer"),
        ("tokenizer_config.json", "tokenizer"),
        ("tokenizer.model", "tokenizer"),
        ("special_tokens_map.json", "tokenizer"),
        ("added_tokens.json", "tokenizer"),
        ("vocab.json", "tokenizer"),
        ("merges.txt", "tokenizer"),
        ("tiktoken.model", "tokenizer"),
        ("qwen.tiktoken", "tokenizer"),
        ("chat_template.jinja", "template"),
        ("chat_template.json", "template"),
        ("config.json", "config"),
        ("generation_config.json", "config"),
        ("preprocessor_config.json", "config"),
        ("notes.txt", "other"),
    ],
)
def test_every_file_has_its_group(server: Hub, path: str, group: str) -> None:
    (added,) = (change for change in compared(server, {}, {path: b"x"}) if change.path)
    (removed,) = (change for change in compared(server, {path: b"x"}, {}) if change.path)
    assert (added.group, added.path, added.before, removed.after) == (group, path, None, None)
    assert added.after == removed.before
    assert added.after is not None


def test_equal_variants_have_no_changes(server: Hub) -> None:
    assert compared(server, {"a.json": b"{}"}, {"a.json": b"{}"}) == ()
    assert of(variant(), variant(origin=Origin(kind="huggingface", repo="org/tiny", repo_id="1", commit=NEW))) == {}


def test_new_code_is_shown_whole(server: Hub) -> None:
    (change,) = compared(server, {}, {"x.py": b"import os\nos.system('x')\n"})
    assert change.diff[1:] == ("+import os", "+os.system('x')")


def test_a_document_that_was_only_written_otherwise(server: Hub) -> None:
    (change,) = compared(server, {"config.json": b'{"a": 1}'}, {"config.json": b'{ "a": 1 }'})
    assert (change.values, change.note) == ((), "the same values, written otherwise")


def test_what_cannot_be_compared_says_why(server: Hub) -> None:
    (change,) = compared(server, {"config.json": b"{}"}, {"config.json": b"[" * 50_000})
    assert change.note == "not a JSON object: only the digests are compared"
    (change,) = compared(server, {"vocab.txt": b"a"}, {"vocab.txt": b"\xff"})
    assert change.note == "not text: only the digests are compared"


def test_large_files_are_not_even_fetched(server: Hub) -> None:
    (change,) = compared(server, {"vocab.txt": b"a"}, {"vocab.txt": b"a" * 1_000_001})
    assert change.note == "more than 1000000 bytes: only the digests are compared"
    assert not server.requests


def test_so_many_files_are_opened_and_the_loud_ones_first(server: Hub) -> None:
    count = drift.EXPLAINED
    old = {f"{number:03}.txt": b"a\n" for number in range(count)} | {"z.py": b"a\n"}
    changes = compared(server, old, {path: b"b\n" for path in old})
    assert [change.path for change in changes] == ["z.py", *sorted(old)[:-1]]
    assert [bool(change.diff) for change in changes] == [True] * count + [False]


def test_the_old_text_is_gone(server: Hub) -> None:
    repos = [Repo("org/tiny", commit, WEIGHTS | {"x.txt": commit.encode()}) for commit in (OLD, NEW)]
    server.move(repos[1])
    (change,) = drift.compare(*(Contents(locked.of(repo)) for repo in repos))
    assert change.note is not None
    assert OLD in change.note
    assert not change.diff
    assert change.before != change.after


def test_a_rewritten_history_is_said(server: Hub) -> None:
    repos = [Repo("org/tiny", commit, WEIGHTS | {"x.txt": commit.encode()}) for commit in (OLD, NEW)]
    server.move(Repo("org/tiny", OLD, WEIGHTS | {"x.txt": b"was never there"}))
    server.move(repos[1])
    (change,) = drift.compare(*(Contents(locked.of(repo)) for repo in repos))
    assert "history was rewritten" in str(change.note)


def test_what_follows_from_the_files() -> None:
    assert of(variant(), variant(facts=Facts(context=20))) == {"config": {"context": ("10", "20")}}
    assert of(variant(), variant(precision="fp8")) == {"config": {"precision": ('"bf16"', '"fp8"')}}
    assert of(variant(), variant(tensors=Tensors(count=2, elements={"F32": 1}))) == {
        "weights": {"count": ("1", "2"), "elements.BF16": ("1", None), "elements.F32": (None, "1")}
    }
    assert of(variant(), variant(licence=Licence(id="LicenseRef-x", gated=True))) == {
        "licence": {"id": ('"MIT"', '"LicenseRef-x"'), "gated": ("false", "true")}
    }
    assert of(variant(), variant(licence=None)) == {"licence": {"id": ('"MIT"', None)}}


def test_what_changed_of_a_cache_and_a_shape_is_named() -> None:
    linear = Recurrent(layers=3, key_heads=2, value_heads=4, key_width=8, value_width=8, kernel=4)
    cache = Cache(kind="hybrid-gqa", layers=36, kv_heads=4, key_width=128, value_width=128, recurrent=linear)
    wide = msgspec.structs.replace(linear, element_bytes=4)
    before, after = (
        variant(facts=Facts(context=10, cache=one, shape=shape))
        for one, shape in (
            (cache, Shape(experts=8)),
            (msgspec.structs.replace(cache, kv_heads=8, recurrent=wide), Shape(experts=16, heads=32)),
        )
    )
    changes = {
        "cache.kv_heads": ("4", "8"),
        "cache.recurrent.element_bytes": ("2", "4"),
        "shape.experts": ("8", "16"),
        "shape.heads": (None, "32"),
    }
    assert of(before, after) == {"config": changes}
    (change,) = drift.compare(Contents(before), Contents(after))
    assert [value.meaning for value in change.values] == [drift.FACTS[key.split(".")[0]] for key in changes]
    assert of(before, variant())["config"]["cache.kind"] == ('"hybrid-gqa"', None)


def test_a_recipe_for_one_generation_is_a_change() -> None:
    override = Override(generation="hopper", args=("--max-model-len", "200000"))
    found = of(variant(), variant(facts=Facts(context=10, overrides=(override,))))
    none, one = found["config"]["overrides"]
    assert none == "[]"
    assert '"generation":"hopper","args":["--max-model-len","200000"]' in str(one)


def test_another_repository_comes_first_and_what_was_never_asked_for_is_no_change() -> None:
    moved = variant(origin=Origin(kind="huggingface", repo="org/tiny", repo_id="2"), licence=Licence(id="x"))
    changes = drift.compare(Contents(variant()), Contents(moved))
    assert [change.group for change in changes] == ["owner", "licence"]
    assert [(value.before, value.after) for value in changes[0].values] == [('"1"', '"2"')]
    assert of(variant(origin=Origin(kind="huggingface", repo="org/tiny")), variant()) == {}
    assert of(variant(tensors=None), variant()) == {}, "a pinned row was never counted"


def test_a_variant_of_another_precision_is_a_successor_and_one_of_another_format_is_new() -> None:
    before = Model(name="chat", requested="x", variants=(variant(),))
    gguf = variant(format="gguf", precision="Q4_K_M")
    after = Model(name="chat", requested="x", variants=(gguf, variant(precision="fp8")))
    first, second = drift.of_model(before, after)
    assert [(value.key, value.after) for value in first.changes[0].values] == [("precision", '"fp8"')]
    assert second.variant == "gguf/Q4_K_M"
    assert [(value.before, value.after) for value in second.changes[0].values] == [(None, "gguf/Q4_K_M")]
    gone, _ = drift.of_model(after, before)
    assert [(value.before, value.after) for value in gone.changes[0].values] == [("gguf/Q4_K_M", None)]


def test_what_is_left_in_a_format_is_no_successor_of_what_went() -> None:
    fp8 = variant(precision="fp8", origin=Origin(kind="huggingface", repo="me/fp8", repo_id="2", commit=OLD))
    before = Model(name="chat", requested="x", variants=(fp8, variant()))
    for after in ((variant(),), (variant(precision="int4"), variant())):
        gone, same = drift.of_model(before, Model(name="chat", requested="x", variants=after))[:2]
        assert [change.group for change in gone.changes] == ["weights"]
        assert [(value.before, value.after) for value in gone.changes[0].values] == [("safetensors/fp8", None)]
        assert (same.variant, same.changes) == ("safetensors/bf16", ())


def test_a_repository_with_another_name_and_the_same_id_has_the_successor() -> None:
    renamed = variant(precision="fp8", origin=Origin(kind="huggingface", repo="org/new", repo_id="1", commit=NEW))
    models = [Model(name="chat", requested="x", variants=(one,)) for one in (variant(), renamed)]
    (found,) = drift.of_model(*models)
    assert [(value.key, value.after) for value in found.changes[0].values] == [("repo", '"org/new"')]


@pytest.mark.parametrize(
    ("origin", "fixed"),
    [
        (Origin(kind="huggingface", repo="a/b", requested="main", commit=OLD), False),
        (Origin(kind="huggingface", repo="a/b", requested=OLD, commit=OLD), True),
        (Origin(kind="huggingface", repo="a/b", commit=OLD), True),
        (Origin(kind="path"), False),
    ],
)
def test_what_names_a_commit_is_fixed(origin: Origin, fixed: bool) -> None:
    assert drift.is_fixed(variant(origin=origin)) is fixed


def test_lines_hide_nothing_and_let_nothing_through() -> None:
    change = Change(
        group="other",
        path="a\x1b[31m.txt",
        before=File(path="a", size=1, sha256="1" * 64),
        diff=("+\u202e\x07\r", "+日本語 ½"),
        more=3,
        note="n",
    )
    shown = list(drift_lines.lines(Drift(model="chat", variant="gguf/F16", source="s", changes=(change,))))
    assert shown == [
        "chat  gguf/F16  s  changed",
        "  other files",
        f"    removed a\\x1b[31m.txt  1 B  sha256 {'1' * 12}",
        "      and 3 more",
        "      +\\u202e\\x07\\r",
        "      +日本語 ½",
        "      (n)",
    ]


def test_a_drift_as_json_has_every_key() -> None:
    found = Drift(model="chat", variant="gguf/F16", source="s", changes=(Change(group="other"),))
    table = json.loads(msgspec.json.encode(found))
    assert set(table) == set(Drift.__struct_fields__)
    assert set(table["changes"][0]) == set(Change.__struct_fields__)


def test_the_words_of_a_vocabulary_are_no_settings(server: Hub) -> None:
    (change,) = compared(server, {"tokenizer.json": b'{"top_k": 1}'}, {"tokenizer.json": b'{"top_k": 2}'})
    assert [(value.key, value.meaning) for value in change.values] == [("top_k", None)]
    (change,) = compared(
        server, {"generation_config.json": b'{"top_k": 1}'}, {"generation_config.json": b'{"top_k": 2}'}
    )
    assert [(value.key, value.meaning) for value in change.values] == [("top_k", drift.SAMPLING)]
