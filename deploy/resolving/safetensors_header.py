"""The header of a safetensors file: how many tensors there are and of which types, without any of their bytes.

Source: the format's own description: 8 bytes of header length, little-endian, then that much JSON, which names
type, shape and place of every tensor, then the tensors' bytes. A header may come from anyone: all of it is checked.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import Annotated

import msgspec

from deploy.lockfile import Tensors

LENGTH_BYTES = 8
HEADER_BYTES = 25_000_000
"""Some 200 000 tensors, more than any model keeps in one file; the Hub's own client reads no longer one either.
The format would allow 100 MB, which take a GB of memory to decode."""
METADATA = "__metadata__"
DTYPE = re.compile(r"[A-Z0-9_]{1,16}")
DTYPES = 32
"""More than there are."""
BITS = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
}
"""Per element. A type that is not here is recorded as it is, unchecked."""

_Count = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    dtype: str
    shape: Annotated[tuple[_Count, ...], msgspec.Meta(max_length=16)]
    data_offsets: tuple[_Count, _Count]


def length(prefix: bytes, size: int) -> int:
    """Bytes of the header, from the first eight of a file of ``size`` bytes. Raises ValueError."""
    if len(prefix) < LENGTH_BYTES:
        raise ValueError("not a safetensors file: it ends within its first 8 bytes")
    found = int.from_bytes(prefix[:LENGTH_BYTES], "little")
    if found > HEADER_BYTES:
        raise ValueError(f"a safetensors header of {found} bytes, {HEADER_BYTES} at most are read")
    if found > size - LENGTH_BYTES:
        raise ValueError(f"a safetensors header of {found} bytes in a file of {size}")
    return found


def parse(header: bytes, size: int) -> Tensors:
    """Of the JSON that ``length`` measured, in a file of ``size`` bytes. Raises ValueError, naming the tensor."""
    try:
        entries = msgspec.json.decode(header, type=dict[str, msgspec.Raw])
        if METADATA in entries:
            msgspec.json.decode(entries.pop(METADATA), type=dict[str, str])
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ValueError(f"damaged safetensors header: {error}") from error
    room = size - LENGTH_BYTES - len(header)
    elements: Counter[str] = Counter()
    taken = 0
    for name, raw in entries.items():
        try:
            entry = msgspec.json.decode(raw, type=_Entry)
            count = _checked(entry, room)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise ValueError(f"damaged safetensors header: tensor `{name[:100]}`: {error}") from error
        elements[entry.dtype] += count
        taken += entry.data_offsets[1] - entry.data_offsets[0]
    if taken > room or len(elements) > DTYPES:
        raise ValueError(f"damaged safetensors header: {taken} bytes of {len(elements)} types in {room} bytes")
    return Tensors(count=len(entries), elements=dict(sorted(elements.items())))


def _checked(entry: _Entry, room: int) -> int:
    """Elements of the tensor, which lies inside the file and is as large as its type and shape say."""
    start, end = entry.data_offsets
    count = math.prod(entry.shape)
    if not DTYPE.fullmatch(entry.dtype):
        raise ValueError(f"type {entry.dtype[:20]!r}")
    if not start <= end <= room:
        raise ValueError(f"bytes {start} to {end} of {room}")
    bits = BITS.get(entry.dtype)
    if (count * bits != (end - start) * 8) if bits else (count > (end - start) * 8):
        raise ValueError(f"{count} elements of type {entry.dtype} in {end - start} bytes")
    return count
