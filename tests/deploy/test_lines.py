import random
import tomllib
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy import canonical, lines

KEY = st.text(st.sampled_from("ab-_ .\"'[]{}#=é"), min_size=1, max_size=4)
TABLES = st.recursive(
    st.just(0), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEY, inner, max_size=3), max_leaves=12
).map(lambda value: value if isinstance(value, dict) else {"root": value})


def leaves(value, at=()):
    """Every plain value with the steps that lead to it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*at, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from leaves(inner, (*at, index))
    else:
        yield at, value


def numbered(value, numbers):
    """The same with a number of its own in every plain value, by which its line is known."""
    if isinstance(value, dict):
        return {key: numbered(inner, numbers) for key, inner in value.items()}
    if isinstance(value, list):
        return [numbered(inner, numbers) for inner in value]
    return next(numbers)


def agrees(text):
    for steps, value in leaves(tomllib.loads(text)):
        if isinstance(value, int):
            assert str(value) in text.split("\n")[lines.find(text, steps) - 1], (steps, text)


@given(TABLES, st.integers())
def test_every_value_is_found_on_its_line(tables, seed):
    mix = random.Random(seed)
    written = canonical.text(numbered(tables, count(1001)), frozenset("ab")).split("\n")
    for _ in range(3):
        written.insert(mix.randrange(len(written)), mix.choice(["", "# [a] = 1", "\t"]))
    agrees("\n".join(written))


@pytest.mark.parametrize(
    "text",
    [
        'a = """\n[x]\ny = 1\n"""\nb = 1001',
        "a = '''\n\"\n'''\nb = 1001 # ] }",
        'a = """x\\"""" # "\nb = 1001',
        'a = """x""""\nb = 1001',
        "a = [\n  [1001, 1002], # one\n  [\n    1003\n  ],\n]\nb = 1004",
        "a.b . c = 1001\na.d = 1002\n[x.y]\nz.q = 1003",
        '"a.b" = 1001\n\'c"\' = 1002\n"\\u0041" = 1003',
        "[[m]]\na = 1001\n[[m.v]]\na = 1002\n[m.v.o]\na = 1003\n[[m]]\n[[m.v]]\na = 1004\n[[m.v]]\n[m.v.o]\na = 1005",
        "a = { b = 1001, c = { d = [1002, { e = 1003 }] } }\r\nf = 1004\r\n",
        "a = 1979-05-27 07:32:00\nb = 1001\nc = 2.5\nd = 1002",
        "[ a . 'b' ] # [c]\nd = 1001",
    ],
)
def test_forms_that_only_a_hand_writes(text):
    agrees(text)


def test_what_is_not_there_is_the_nearest_above():
    text = "a = 1\n\n[[m]]\nb = 2\n[m.t]\nc = 3\n"
    assert lines.find(text, ("m", 0, "t", "missing")) == 5
    assert lines.find(text, ("m", 0, "missing")) == 3
    assert lines.find(text, ("missing",)) == 1
    assert lines.find("", ()) == 1
