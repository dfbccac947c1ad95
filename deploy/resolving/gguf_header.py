"""The header of a GGUF file, read in one pass without its tensors' bytes: metadata, then type and shape of each tensor.

The ``gguf`` package's reader builds an array per token and takes seconds for a vocabulary of 150 000, and it
needs the whole file. This one takes a tenth of a second and a prefix of the file, so that a Hub's file can be
read by its first megabytes. Source: the GGUF specification, versions 2 and 3, little-endian.
"""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Mapping
from functools import cache
from typing import NamedTuple, Protocol

import msgspec

from deploy.lockfile import Tensors

MAGIC = b"GGUF"
VERSIONS = (2, 3)
STRING, ARRAY = 8, 9
SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
KEPT_ITEMS = 1024
"""Longer arrays are vocabularies; shorter ones say something per layer."""
STRING_BYTES = 1 << 26
ITEMS = 1 << 23
"""More than any vocabulary: a count beyond these is damage."""
KEYS = 1 << 16
TENSORS = 1 << 18
"""Kimi-K2 has 2 000; a count beyond these is damage."""
ELEMENTS = 1 << 44
"""Of one tensor, 2 000 times the largest known."""
DIMENSIONS = 8
TYPES = 256

Value = str | int | float | bool | list[int | float | bool] | None


class Stream(Protocol):
    """What is read here: any binary file."""

    def read(self, size: int, /) -> bytes: ...
    def seek(self, offset: int, whence: int, /) -> int: ...


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """``values``: key → value; None for what is skipped: arrays of strings and long arrays. ``lengths``: of those."""

    values: Mapping[str, Value]
    lengths: Mapping[str, int]
    tensors: Tensors


class Skipped(NamedTuple):
    """An array that is not kept."""

    items: int


class Truncated(ValueError):
    """The bytes end inside the header: more of the file is needed."""


def read(stream: Stream) -> Header:
    """Raises Truncated, or ValueError for what is no GGUF of a known version."""
    if stream.read(4) != MAGIC:
        raise ValueError("not a GGUF file")
    version = _number(stream, "<I")
    if version not in VERSIONS:
        raise ValueError(f"GGUF version {version}, known are 2 and 3")
    tensors = _count(stream, TENSORS, "tensors")
    values: dict[str, Value] = {}
    lengths: dict[str, int] = {}
    for _ in range(_count(stream, KEYS, "keys")):
        key = _string(stream)
        value = _value(stream, int(_number(stream, "<I")))
        if isinstance(value, Skipped):
            lengths[key] = value.items
        values[key] = None if isinstance(value, Skipped) else value
    return Header(values=values, lengths=lengths, tensors=_tensors(stream, tensors))


def _tensors(stream: Stream, count: int) -> Tensors:
    elements: Counter[str] = Counter()
    for _ in range(count):
        name = _string(stream)
        rank = int(_number(stream, "<I"))
        if rank > DIMENSIONS:
            raise ValueError(f"damaged GGUF header: tensor `{name[:100]}` has {rank} dimensions")
        shape = [int(_number(stream, "<Q")) for _ in range(rank)]
        kind = int(_number(stream, "<I"))
        _take(stream, 8)  # where its bytes begin
        number = math.prod(shape)
        if kind >= TYPES or number >= ELEMENTS:
            raise ValueError(f"damaged GGUF header: tensor `{name[:100]}`: {number} elements of type {kind}")
        elements[_type_name(kind)] += number
    return Tensors(count=count, elements=dict(sorted(elements.items())))


@cache
def _type_name(kind: int) -> str:
    from gguf import GGMLQuantizationType

    return {known.value: known.name for known in GGMLQuantizationType}.get(kind, f"TYPE_{kind}")


def _value(stream: Stream, kind: int) -> Value | Skipped:
    if kind == STRING:
        return _string(stream)
    if kind != ARRAY:
        return _number(stream, _form(kind))
    item, count = int(_number(stream, "<I")), _count(stream, ITEMS, "items")
    if item == STRING:
        for _ in range(count):
            _take(stream, int(_number(stream, "<Q")))
        return Skipped(count)
    form = _form(item)
    if count > KEPT_ITEMS:
        stream.seek(count * struct.calcsize(form), 1)
        return Skipped(count)
    return [_number(stream, form) for _ in range(count)]


def _form(kind: int) -> str:
    if kind not in SCALARS:
        raise ValueError(f"damaged GGUF header: value type {kind}")
    return SCALARS[kind]


def _count(stream: Stream, most: int, what: str) -> int:
    count = int(_number(stream, "<Q"))
    if count > most:
        raise ValueError(f"damaged GGUF header: {count} {what}")
    return count


def _number(stream: Stream, form: str) -> int | float | bool:
    value: int | float | bool = struct.unpack(form, _take(stream, struct.calcsize(form)))[0]
    return value


def _string(stream: Stream) -> str:
    return _take(stream, int(_number(stream, "<Q"))).decode("utf-8", errors="replace")


def _take(stream: Stream, count: int) -> bytes:
    if count > STRING_BYTES:
        raise ValueError(f"damaged GGUF header: a string of {count} bytes")
    taken = stream.read(count)
    if len(taken) < count:
        raise Truncated("the GGUF header is cut off")
    return taken
