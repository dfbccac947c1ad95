"""The recorded form of a box: what it leaves out, how it is read, and what must hold in it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any

import msgspec

from deploy import decoding
from deploy.decoding import Undecodable
from deploy.hardware import Hardware

COUNTS = ("sockets", "physical_cores", "logical_cores", "affinity_cores", "quota_cores", "numa_nodes")
CAPABILITY = re.compile(r"\d{1,2}\.\d")


def anonymous(hardware: Hardware, today: date) -> Hardware:
    """For other people to read: without the GPUs' serial ids and without the processes of the moment."""
    gpus = tuple(msgspec.structs.replace(gpu, uuid=None) for gpu in hardware.gpus)
    readings = tuple(msgspec.structs.replace(reading, processes=()) for reading in hardware.now.gpus)
    return msgspec.structs.replace(
        hardware,
        gpus=gpus,
        now=msgspec.structs.replace(hardware.now, gpus=readings),
        note=hardware.note or f"recorded with `ownweights hardware --record` on {today.isoformat()}",
    )


def encode(hardware: Hardware) -> bytes:
    return msgspec.json.format(msgspec.json.encode(hardware), indent=2) + b"\n"


def decode(data: bytes) -> Hardware:
    """Raises Undecodable with the field and the rule; for an unknown field its hint names the nearest known one."""
    try:
        raw = msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Undecodable(f"not valid JSON: {error}", None) from error
    found = decoding.typed(raw, "", Hardware)
    for fault in _faults(found):
        raise Undecodable(fault, None)
    return found


def _faults(hardware: Hardware) -> Iterator[str]:
    """In an order in which the later rules may rely on the earlier ones."""
    for field in _negative(msgspec.to_builtins(hardware), ""):
        yield f"`{field}` must not be negative"
    for name in COUNTS:
        if getattr(hardware.cpu, name) == 0:
            yield f"`cpu.{name}` must be more than 0, or left out where it is unknown"
    yield from _references(hardware)
    yield from _totals(hardware)


def _negative(value: Any, name: str) -> Iterator[str]:
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from _negative(entry, f"{name}.{key}" if name else key)
    elif isinstance(value, list | tuple):
        for index, entry in enumerate(value):
            yield from _negative(entry, f"{name}[{index}]")
    elif isinstance(value, int | float) and value < 0:
        yield name


def _references(hardware: Hardware) -> Iterator[str]:
    """Each device once; slices, readings and links of devices that are there."""
    known = {gpu.index for gpu in hardware.gpus}
    yield from _repeated("gpus", [gpu.index for gpu in hardware.gpus])
    yield from _repeated("now.gpus", [reading.index for reading in hardware.now.gpus])
    named = [(f"gpus[{at}].slice_of", gpu.slice_of) for at, gpu in enumerate(hardware.gpus)]
    named += [(f"now.gpus[{at}].index", reading.index) for at, reading in enumerate(hardware.now.gpus)]
    for at, link in enumerate(hardware.links):
        named += [(f"links[{at}].first", link.first), (f"links[{at}].second", link.second)]
        if link.first == link.second:
            yield f"`links[{at}].second` must be another GPU than `first`"
    for field, index in named:
        if index is not None and index not in known:
            yield f"`{field}` is {index}, and there is no GPU of that index"


def _repeated(field: str, indices: Sequence[int]) -> Iterator[str]:
    for at, index in enumerate(indices):
        if index in indices[:at]:
            yield f"`{field}[{at}].index` is {index} a second time"


def _totals(hardware: Hardware) -> Iterator[str]:
    memory, now = hardware.memory, hardware.now
    bounded = [
        ("now.memory_available_bytes", now.memory_available_bytes, "memory.total_bytes", memory.total_bytes),
        ("now.swap_used_bytes", now.swap_used_bytes, "memory.swap_total_bytes", memory.swap_total_bytes),
        ("now.disk_free_bytes", now.disk_free_bytes, "disk.total_bytes", hardware.disk.total_bytes),
    ]
    for at, gpu in enumerate(hardware.gpus):
        if gpu.compute_capability is not None and not CAPABILITY.fullmatch(gpu.compute_capability):
            yield f"`gpus[{at}].compute_capability` is {gpu.compute_capability!r:.40}, not like '9.0'"
    places = {gpu.index: at for at, gpu in enumerate(hardware.gpus)}
    for at, reading in enumerate(now.gpus):
        place = places[reading.index]
        whole, total = f"gpus[{place}].memory_total_bytes", hardware.gpus[place].memory_total_bytes
        bounded.append((f"now.gpus[{at}].memory_free_bytes", reading.memory_free_bytes, whole, total))
        bounded.append((f"now.gpus[{at}].memory_used_bytes", reading.memory_used_bytes, whole, total))
    for field, part, whole, limit in bounded:
        if part is not None and limit is not None and part > limit:
            yield f"`{field}` must not be more than `{whole}`: {part} > {limit}"
