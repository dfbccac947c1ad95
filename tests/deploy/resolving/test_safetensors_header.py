import contextlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.lockfile import Tensors
from deploy.resolving import safetensors_header
from tests.checkpoint import Tensor, write_safetensors


def file(entries, data=b"", padding=0):
    header = (json.dumps(entries) if isinstance(entries, dict) else entries).encode() + b" " * padding
    return len(header).to_bytes(8, "little") + header + data


def read(content):
    length = safetensors_header.length(content[:8], len(content))
    return safetensors_header.parse(content[8 : 8 + length], len(content))


def entry(dtype="F32", shape=(2,), start=0, end=8):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def test_a_file_as_it_is_written(tmp_path):
    values = np.zeros((3, 4), np.float32)
    tensors = {name: Tensor(values.shape, lambda: iter((values,))) for name in ("b", "a")}
    write_safetensors(tmp_path / "x.safetensors", tensors)
    assert read((tmp_path / "x.safetensors").read_bytes()) == Tensors(count=2, elements={"BF16": 24})


def test_types_are_added_up_each_for_itself():
    entries = {
        "__metadata__": {"format": "pt"},
        "a": entry(),
        "b": entry("F8_E4M3", (2, 3), 8, 14),
        "c": entry("F4", (4,), 14, 16),
        "d": entry("F32", (), 16, 20),
        "e": entry("X9_NEW", (16,), 20, 22),
        "f": entry("F32", (0, 5), 22, 22),
    }
    found = read(file(entries, bytes(22), padding=3))
    assert found == Tensors(count=6, elements={"F32": 3, "F4": 4, "F8_E4M3": 6, "X9_NEW": 16})


def test_a_file_without_tensors():
    assert read(file({})) == Tensors(count=0)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "ends within its first 8 bytes"),
        (b"PK\3\4", "ends within"),
        ((100_000_000).to_bytes(8, "little") + b"{", "a safetensors header of 100000000 bytes, 25000000 at most"),
        (b"\xff" * 8, "header of 18446744073709551615 bytes"),
        (file({})[:-1], "header of 2 bytes in a file of 9"),
        (file("[]"), "damaged"),
        (file("{"), "damaged"),
        (file('{"a":' + "[" * 100_000), "damaged"),
        (file({"__metadata__": {"a": 1}}), "damaged"),
        (file({"a": entry() | {"more": 1}}, bytes(8)), "`a`"),
        (file({"a": entry(dtype="f32")}, bytes(8)), "type 'f32'"),
        (file({"a": entry(dtype="A" * 17)}, bytes(8)), "type 'A"),
        (file({"a": entry(shape=(-2,))}, bytes(8)), "`a`"),
        (file({"a": entry(shape=(2.5,))}, bytes(8)), "`a`"),
        (file({"a": entry(shape=(1,) * 17)}, bytes(8)), "`a`"),
        (file({"a": entry(shape=(3,))}, bytes(8)), "3 elements of type F32 in 8 bytes"),
        (file({"a": entry("NEW", shape=(65,))}, bytes(8)), "65 elements of type NEW in 8 bytes"),
        (file({"a": entry()}, bytes(7)), "bytes 0 to 8 of 7"),
        (file({"a": entry(start=8, end=0)}, bytes(8)), "bytes 8 to 0"),
        (file({"a": entry(), "b": entry()}, bytes(8)), "16 bytes of 1 types in 8 bytes"),
        (file({str(n): entry(f"T{n}", (0,), 0, 0) for n in range(33)}), "33 types"),
        (file('{"a": {"dtype": "F32", "shape": [1' + "0" * 5000 + '], "data_offsets": [0, 8]}}', bytes(8)), "`a`"),
    ],
)
def test_damage_is_named(content, words):
    with pytest.raises(ValueError, match=words):
        read(content)


TYPICAL = file({"__metadata__": {"format": "pt"}, "a": entry(), "b": entry("BF16", (2, 2), 8, 16)}, bytes(16))


@given(st.data())
def test_changed_bytes_are_read_or_refused(data):
    content = bytearray(TYPICAL)
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = read(bytes(content))
    except ValueError:
        return
    # Half a byte is the least that an element takes.
    assert sum(found.elements.values()) <= 8 * len(content)


@given(st.binary(max_size=200))
def test_noise_is_read_or_refused(noise):
    with contextlib.suppress(ValueError):
        read(len(noise).to_bytes(8, "little") + noise)


JSON = st.recursive(
    st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


@given(JSON)
def test_any_json_is_read_or_refused(document):
    with contextlib.suppress(ValueError):
        read(file(json.dumps(document), bytes(16)))
