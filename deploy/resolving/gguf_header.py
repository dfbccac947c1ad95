"""The metadata at the start of a GGUF file, read in one pass without its tensors.

The ``gguf`` package's reader builds an array per token and takes seconds for a vocabulary of 150 000, and it
needs the whole file. This one takes a tenth of a second and a prefix of the file, so that a Hub's file can be
read by its first megabytes. Source: the GGUF specification, versions 2 and 3, little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import BinaryIO

MAGIC = b"GGUF"
VERSIONS = (2, 3)
STRING, ARRAY = 8, 9
SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
KEPT_ITEMS = 1024
"""Longer arrays are vocabularies; shorter ones say something per layer."""
STRING_BYTES = 1 << 26
ITEMS = 1 << 32
"""More than any vocabulary: a count beyond these is damage."""

Value = str | int | float | bool | list[int | float | bool] | None
Header = Mapping[str, Value]


class Truncated(ValueError):
    """The bytes end inside the header: more of the file is needed."""


def read(stream: BinaryIO) -> dict[str, Value]:
    """Key → value; None for what is skipped: arrays of strings and long arrays.

    Raises Truncated, or ValueError for what is no GGUF of a known version.
    """
    if stream.read(4) != MAGIC:
        raise ValueError("not a GGUF file")
    version = _number(stream, "<I")
    if version not in VERSIONS:
        raise ValueError(f"GGUF version {version}, known are 2 and 3")
    _number(stream, "<Q")  # the tensor count, which nobody needs here
    count = int(_number(stream, "<Q"))
    header: dict[str, Value] = {}
    for _ in range(count):
        key = _string(stream)
        header[key] = _value(stream, int(_number(stream, "<I")))
    return header


def _value(stream: BinaryIO, kind: int) -> Value:
    if kind == STRING:
        return _string(stream)
    if kind != ARRAY:
        return _number(stream, _form(kind))
    item, count = int(_number(stream, "<I")), int(_number(stream, "<Q"))
    if item == STRING:
        for _ in range(count):
            _take(stream, int(_number(stream, "<Q")))
        return None
    form = _form(item)
    if count > ITEMS:
        raise ValueError(f"damaged GGUF header: an array of {count} items")
    if count > KEPT_ITEMS:
        stream.seek(count * struct.calcsize(form), 1)
        return None
    return [_number(stream, form) for _ in range(count)]


def _form(kind: int) -> str:
    if kind not in SCALARS:
        raise ValueError(f"damaged GGUF header: value type {kind}")
    return SCALARS[kind]


def _number(stream: BinaryIO, form: str) -> int | float | bool:
    value: int | float | bool = struct.unpack(form, _take(stream, struct.calcsize(form)))[0]
    return value


def _string(stream: BinaryIO) -> str:
    return _take(stream, int(_number(stream, "<Q"))).decode("utf-8", errors="replace")


def _take(stream: BinaryIO, count: int) -> bytes:
    if count > STRING_BYTES:
        raise ValueError(f"damaged GGUF header: a string of {count} bytes")
    taken = stream.read(count)
    if len(taken) < count:
        raise Truncated("the GGUF header is cut off")
    return taken
