import struct
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy import gguf_header
from tests import tiny


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tiny.gguf(tmp_path_factory.mktemp("tiny") / "tiny.gguf")


def text(value):
    return struct.pack("<Q", len(value)) + value.encode()


def header(*entries, version=3, count=None):
    """A GGUF header of hand-written entries: key, type number, encoded value."""
    body = b"".join(text(key) + struct.pack("<I", kind) + value for key, kind, value in entries)
    return b"GGUF" + struct.pack("<IQQ", version, 0, len(entries) if count is None else count) + body


def read(content):
    return gguf_header.read(BytesIO(content))


def test_it_reads_what_the_reference_reader_reads(path):
    from gguf import GGUFReader

    with path.open("rb") as stream:
        found = gguf_header.read(stream)
    expected = {key: field.contents() for key, field in GGUFReader(path).fields.items() if not key.startswith("GGUF.")}
    assert set(found) == set(expected)
    for key, value in found.items():
        assert value is None or value == expected[key]
    assert {key for key, value in found.items() if value is None} == {"tokenizer.ggml.tokens", "tokenizer.ggml.merges"}


def test_short_arrays_are_kept_and_long_ones_passed_over():
    numbers = struct.pack("<IQ3I", 4, 3, 8, 8, 2)
    many = struct.pack("<IQ", 4, 2000) + b"\0" * 8000
    found = read(header(("heads", 9, numbers), ("long", 9, many), ("last", 7, b"\1")))
    assert found == {"heads": [8, 8, 2], "long": None, "last": True}


def test_any_prefix_asks_for_more(path):
    whole = path.read_bytes()
    for length in (4, 8, 23, 100, 1000):
        with pytest.raises(gguf_header.Truncated):
            read(whole[:length])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a GGUF"),
        (b"PK\3\4", "not a GGUF"),
        (header(version=1), "version 1"),
        (header(version=0x03000000), "version"),
        (header(("a", 99, b"")), "value type 99"),
        (header(("a", 9, struct.pack("<IQ", 9, 1))), "value type 9"),
        (header(("a", 8, struct.pack("<Q", 1 << 62))), "string of"),
        (header(("a", 9, struct.pack("<IQ", 0, 1 << 62))), "items"),
    ],
)
def test_damage_is_named(content, words):
    with pytest.raises(ValueError, match=words):
        read(content)


@given(st.binary(max_size=200))
def test_noise_is_refused_and_nothing_else_happens(noise):
    with pytest.raises(ValueError):
        read(header(count=1) + noise + b"\xff" * 8)
