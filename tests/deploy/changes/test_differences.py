from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.changes import differences
from deploy.changes.differences import Incomparable, Value

LEAVES = st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=3)
TREES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner))


def encoded(value: object) -> bytes:
    return json.dumps(value).encode()


def values(before: object, after: object, **keys: object) -> tuple[Value, ...]:
    return differences.of_json(encoded(before), encoded(after), **keys).shown


def test_texts_as_a_unified_diff() -> None:
    assert differences.of_texts(b"a\nb\nc\n", b"a\nB\nc\n") == ("@@ -1,3 +1,3 @@", " a", "-b", "+B", " c")
    assert differences.of_texts(b"", b"a\n") == ("@@ -0,0 +1 @@", "+a")
    assert differences.of_texts(b"a\n", b"a") == ("@@ -1 +1 @@", "-a", "+a (no line feed)")
    assert differences.of_texts(b"a\r\n", b"a\n") == ("@@ -1 +1 @@", "-a\r", "+a")


def test_a_long_diff_is_cut_and_says_so() -> None:
    lines = differences.of_texts(b"", b"x\n" * 1000)
    assert len(lines) == differences.SHOWN_LINES + 1
    assert lines[-1] == f"… {1001 - differences.SHOWN_LINES} more lines"
    (_, line) = differences.of_texts(b"", b"x" * 5000 + b"\n")
    assert line == "+" + "x" * (differences.LINE_CHARACTERS - 1) + "… (5001 characters)"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"\xff", "not text"),
        (b"x" * (differences.TEXT_BYTES + 1), "bytes"),
        (b"\n" * (differences.LINES + 1), "lines"),
    ],
)
def test_a_text_that_cannot_be_compared(content: bytes, why: str) -> None:
    with pytest.raises(Incomparable, match=why):
        differences.of_texts(b"", content)
    with pytest.raises(Incomparable, match=why):
        differences.of_texts(content, b"")


def test_json_key_by_key() -> None:
    before = {"a": 1, "b": {"c": [1, 2], "d": True}, "gone": None}
    after = {"a": 1.0, "b": {"c": [1, 3], "d": 1}, "new": {"x": "y"}}
    assert values(before, after) == (
        Value(key="a", before="1", after="1.0"),
        Value(key="b.c[1]", before="2", after="3"),
        Value(key="b.d", before="true", after="1"),
        Value(key="gone", before="null"),
        Value(key="new", after='{"x":"y"}'),
    )
    assert [value.key for value in values(before, after, without=("b", "new"))] == ["a", "gone"]


def test_a_list_that_grew_tells_what_came_and_went() -> None:
    assert values({"m": ["a", "b", "c"]}, {"m": ["a", "c", "d", "d"]}) == (
        Value(key="m", before="3 items", after="4 items"),
        Value(key="m[]", before='"b"'),
        Value(key="m[]", after='"d"'),
        Value(key="m[]", after='"d"'),
    )


def test_many_and_long_values_are_cut_and_counted() -> None:
    found = differences.of_json(b"{}", encoded({f"k{number:03}": "x" * 1000 for number in range(100)}))
    assert (len(found.shown), found.more) == (differences.SHOWN_VALUES, 100 - differences.SHOWN_VALUES)
    assert found.shown[0].after == '"' + "x" * (differences.VALUE_CHARACTERS - 1) + "… (1002 characters)"
    # A long key with many below it must not be written out for each of them.
    deep = encoded({"k" * 1_000_000: {str(number): number for number in range(1000)}})
    assert all(len(value.key) <= differences.KEY_CHARACTERS for value in differences.of_json(b"{}", deep).shown)
    below = differences.of_json(encoded({"k" * 1_000_000: {}}), deep)
    assert below.more == 1000 - differences.SHOWN_VALUES


@pytest.mark.parametrize("content", [b"[]", b"{", b"\xff", b'{"a":' * 100_000, b"[" * 100_000])
def test_what_is_no_json_object(content: bytes) -> None:
    with pytest.raises(Incomparable, match="not a JSON object"):
        differences.of_json(b"{}", content)


def test_json_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(differences, "JSON_BYTES", 10)
    with pytest.raises(Incomparable, match="more than 10 bytes"):
        differences.of_json(b"{}", b'{"a": "bcdefgh"}')


@given(TREES, TREES)
def test_nothing_differs_exactly_where_the_documents_are_equal(before: object, after: object) -> None:
    found = values({"x": before}, {"x": after})
    assert bool(found) == (json.dumps(before, sort_keys=True) != json.dumps(after, sort_keys=True))
    assert found == values({"x": before}, {"x": after})
