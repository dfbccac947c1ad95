import struct
from collections import Counter
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.lockfile import Tensors
from deploy.resolving import gguf_header
from tests import tiny


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tiny.gguf(tmp_path_factory.mktemp("tiny") / "tiny.gguf")


def text(value):
    return struct.pack("<Q", len(value)) + value.encode()


def header(*entries, version=3, count=None, tensors=(), tensor_count=None):
    """A GGUF header of hand-written entries (key, type number, encoded value) and tensors (name, shape, type)."""
    body = b"".join(text(key) + struct.pack("<I", kind) + value for key, kind, value in entries)
    for name, shape, kind in tensors:
        body += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, 0)
    counts = (len(tensors) if tensor_count is None else tensor_count, len(entries) if count is None else count)
    return b"GGUF" + struct.pack("<IQQ", version, *counts) + body


def read(content):
    return gguf_header.read(BytesIO(content))


def test_it_reads_what_the_reference_reader_reads(path):
    from gguf import GGUFReader

    with path.open("rb") as stream:
        found = gguf_header.read(stream).values
    expected = {key: field.contents() for key, field in GGUFReader(path).fields.items() if not key.startswith("GGUF.")}
    assert set(found) == set(expected)
    for key, value in found.items():
        assert value is None or value == expected[key]
    assert {key for key, value in found.items() if value is None} == {"tokenizer.ggml.tokens", "tokenizer.ggml.merges"}


def test_it_counts_what_the_reference_reader_counts(path):
    from gguf import GGUFReader

    expected = Counter()
    tensors = GGUFReader(path).tensors
    for tensor in tensors:
        expected[tensor.tensor_type.name] += int(tensor.n_elements)
    with path.open("rb") as stream:
        assert gguf_header.read(stream).tensors == Tensors(count=len(tensors), elements=dict(expected))


def test_tensors_are_counted_by_the_name_of_their_type():
    found = read(header(tensors=[("a", (256, 4), 12), ("b", (7,), 0), ("c", (), 0), ("d", (5, 0), 200)])).tensors
    assert found == Tensors(count=4, elements={"F32": 8, "Q4_K": 1024, "TYPE_200": 0})


def test_short_arrays_are_kept_and_long_ones_passed_over():
    numbers = struct.pack("<IQ3I", 4, 3, 8, 8, 2)
    many = struct.pack("<IQ", 4, 2000) + b"\0" * 8000
    words = struct.pack("<IQ", 8, 2) + text("a") + text("")
    found = read(header(("heads", 9, numbers), ("long", 9, many), ("words", 9, words), ("last", 7, b"\1")))
    assert found.values == {"heads": [8, 8, 2], "long": None, "words": None, "last": True}
    assert found.lengths == {"long": 2000, "words": 2}


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
        (header(("a", 9, struct.pack("<IQ", 8, 1 << 62))), "items"),
        (header(count=1 << 60), "keys"),
        (header(tensor_count=1 << 60), "tensors"),
        (header(tensors=[("a", (1,) * 9, 0)]), "`a` has 9 dimensions"),
        (header(tensors=[("a", (1 << 40, 1 << 40), 0)]), "`a`: "),
        (header(tensors=[("a", (1,), 300)]), "type 300"),
    ],
)
def test_damage_is_named(content, words):
    with pytest.raises(ValueError, match=words):
        read(content)


@given(st.binary(max_size=200))
def test_noise_is_refused_and_nothing_else_happens(noise):
    with pytest.raises(ValueError):
        read(header(count=1) + noise + b"\xff" * 8)


TYPICAL = header(
    ("general.architecture", 8, text("qwen3")),
    ("heads", 9, struct.pack("<IQ3I", 4, 3, 8, 8, 2)),
    ("tokens", 9, struct.pack("<IQ", 8, 2) + text("a") + text("b")),
    tensors=[("a", (256, 4), 12), ("b", (7,), 0)],
)


@given(st.data())
def test_a_changed_header_is_read_or_refused_in_bounded_work(data):
    content = bytearray(TYPICAL)
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    stream = BytesIO(content + data.draw(st.binary(max_size=64)))
    try:
        found = gguf_header.read(stream)
    except ValueError:
        return
    assert all(0 <= number < 1 << 63 for number in found.tensors.elements.values())
    assert len(found.values) <= len(content)


def test_a_list_of_empty_strings_ends_with_the_file():
    content = header(("a", 9, struct.pack("<IQ", 8, gguf_header.ITEMS))) + bytes(8 * 1000)
    with pytest.raises(gguf_header.Truncated):
        read(content)
