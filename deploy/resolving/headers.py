"""What the headers of a model's weights say, read where they lie: megabytes, however many terabytes follow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from threading import Lock
from typing import TypeVar

from deploy import output
from deploy.errors import LockError
from deploy.lockfile import Tensors
from deploy.resolving import gguf_header, safetensors_header
from deploy.resolving.folder import Folder

T = TypeVar("T")

READERS = 8
"""Round trips at once: DeepSeek-V3 has 163 shards."""
TOTAL_BYTES = 1 << 28
"""Of all headers of one variant. Kimi-K2's take 16 MB."""
LARGE_BYTES = 1 << 20
"""Longer headers are read one after the other: decoded, one of 25 MB takes some 100 MB of memory."""
MOST_FILES = 4096
FLOATS = frozenset(["F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"])
"""Types whose elements are one parameter each. Integers may be packed, or no parameters at all."""


def safetensors(folder: Folder, paths: Sequence[str]) -> Tensors:
    """Of all shards together. Raises LockError naming the damaged one, PlaceError where it cannot be had."""
    alone = Lock()
    return added(_all(paths, lambda path: _shard(folder, path, alone)))


def gguf(folder: Folder, paths: Sequence[str]) -> tuple[gguf_header.Header, Tensors]:
    """The first part's header, which alone has metadata, and the tensors of all parts. Raises as ``safetensors``."""
    found = _all(paths, lambda path: _part(folder, path))
    return found[0], added(header.tensors for header in found)


def parameters(tensors: Tensors, *, packed: bool) -> int | None:
    """How many the model has, where its types say so: ``packed`` types of GGUF hold one per element."""
    if not (packed or FLOATS.issuperset(tensors.elements)):
        return None
    return sum(tensors.elements.values()) or None


def added(parts: Iterable[Tensors]) -> Tensors:
    """Of several files as of one."""
    count, elements = 0, Counter[str]()
    for part in parts:
        count += part.count
        elements.update(part.elements)
    return Tensors(count=count, elements=dict(sorted(elements.items())))


def _all(paths: Sequence[str], read: Callable[[str], tuple[int, T]]) -> list[T]:
    """Several at once; ``read`` gives the header's length and what it says."""
    if len(paths) > MOST_FILES:
        raise LockError(f"the weights are in {len(paths)} files, more than the {MOST_FILES} that any model has")
    total, found = 0, []
    with ThreadPoolExecutor(READERS) as pool:
        for length, said in pool.map(read, paths):
            total += length
            if total > TOTAL_BYTES:
                raise LockError(f"the headers of the weights are longer than {output.size(TOTAL_BYTES)} together")
            found.append(said)
    return found


def _shard(folder: Folder, path: str, alone: Lock) -> tuple[int, Tensors]:
    size = folder.size(path)
    with folder.open(path) as stream:
        try:
            length = safetensors_header.length(stream.read(safetensors_header.LENGTH_BYTES), size)
            with alone if length > LARGE_BYTES else nullcontext():
                return length, safetensors_header.parse(stream.read(length), size)
        except ValueError as error:
            raise _damaged(error, path) from error


def _part(folder: Folder, path: str) -> tuple[int, gguf_header.Header]:
    with folder.open(path) as stream:
        try:
            header = gguf_header.read(stream)
        except ValueError as error:
            raise _damaged(error, path) from error
        return stream.seek(0, 1), header


def _damaged(error: ValueError, path: str) -> LockError:
    return LockError(str(error), where=path, hint="the file is damaged, not complete or of another format")
