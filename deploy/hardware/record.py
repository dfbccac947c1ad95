"""The recorded form of a box: what it leaves out, how it is read, and what must hold in it."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any

import msgspec

from deploy import decoding
from deploy.decoding import Undecodable
from deploy.hardware import Hardware

COUNTS = ("sockets", "physical_cores", "logical_cores", "affinity_cores", "quota_cores", "numa_nodes")
CORES, GPUS = 65536, 256
"""No box has more. What is above is no box, and costs whoever plans for it minutes and gigabytes."""
BANDWIDTH = (1e7, 1e14)
"""Bytes/s between which every memory lies: a tenth of the slowest boards', and ten times the fastest GPU's."""
UNCOUNTED = 1 / 64
"""A part of a GPU's memory: free and used are read by a driver that changes them."""
CAPABILITY = re.compile(r"[0-9]{1,2}\.[0-9]")


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
    encoding = json.detect_encoding(data)
    if not encoding.startswith("utf-8"):
        name = encoding[:6].upper()
        raise Undecodable(f"text in {name}, and JSON is in UTF-8", None, f"iconv -f {name} -t UTF-8 FILE > box.json")
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        raw = msgspec.json.decode(data)
        # Numbers were read above: as texts they cost nothing here, however long they are.
        json.loads(data, object_pairs_hook=_once, parse_int=str, parse_float=str)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Undecodable(f"not valid JSON: {error}", None) from error
    found = decoding.typed(raw, "", Hardware)
    for fault in _faults(found):
        raise Undecodable(fault, None)
    return found


def _once(pairs: list[tuple[str, Any]]) -> None:
    """A reader takes the last of two, and who looks at the file sees the first."""
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise Undecodable(f"the key {key!r:.80} stands twice in one table", None)
        seen.add(key)


def _faults(hardware: Hardware) -> Iterator[str]:
    """In an order in which the later rules may rely on the earlier ones."""
    for field in _negative(msgspec.to_builtins(hardware), ""):
        yield f"`{field}` must not be negative"
    yield from _cpu(hardware)
    bandwidth, (least, most) = hardware.memory.bandwidth_bytes_per_s, BANDWIDTH
    if bandwidth is not None and not least <= bandwidth <= most:
        yield f"`memory.bandwidth_bytes_per_s` is {bandwidth:g}, not from {least:g} to {most:g}"
    if len(hardware.gpus) > GPUS:
        yield f"`gpus` has {len(hardware.gpus)} entries, more than {GPUS}"
    yield from _references(hardware)
    yield from _slices(hardware)
    yield from _pairs(hardware)
    yield from _totals(hardware)


def _cpu(hardware: Hardware) -> Iterator[str]:
    cpu = hardware.cpu
    for name in COUNTS:
        count = getattr(cpu, name)
        if count == 0:
            yield f"`cpu.{name}` must be more than 0, or left out where it is unknown"
        if count is not None and count > CORES:
            yield f"`cpu.{name}` is {count:g}, more than {CORES}"
    for name, count in (("physical_cores", cpu.physical_cores), ("affinity_cores", cpu.affinity_cores)):
        if count is not None and cpu.logical_cores is not None and count > cpu.logical_cores:
            yield f"`cpu.{name}` must not be more than `cpu.logical_cores`: {count} > {cpu.logical_cores}"
    if hardware.platform.rpartition("-")[2] != cpu.architecture:
        yield f"`platform` is {hardware.platform!r:.40}, and `cpu.architecture` is {cpu.architecture!r:.40}"


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
    seen: set[int] = set()
    for at, index in enumerate(indices):
        if index in seen:
            yield f"`{field}[{at}].index` is {index} a second time"
        seen.add(index)


def _slices(hardware: Hardware) -> Iterator[str]:
    """Each of a whole GPU that is split."""
    split = {gpu.index for gpu in hardware.gpus if gpu.mig and gpu.slice_of is None}
    for at, gpu in enumerate(hardware.gpus):
        if gpu.slice_of is not None and gpu.slice_of not in split:
            yield f"`gpus[{at}].slice_of` is {gpu.slice_of}, and that is no whole GPU with `mig`"
        if gpu.slice_of is not None and gpu.mig:
            yield f"`gpus[{at}].mig` must not be true for a slice"


def _pairs(hardware: Hardware) -> Iterator[str]:
    seen: set[frozenset[int]] = set()
    for at, link in enumerate(hardware.links):
        pair = frozenset((link.first, link.second))
        if pair in seen:
            yield f"`links[{at}]` is of GPUs {link.first} and {link.second} a second time"
        seen.add(pair)


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
    for at, reading in enumerate(now.gpus):
        total = hardware.gpus[places[reading.index]].memory_total_bytes
        both = (reading.memory_free_bytes or 0) + (reading.memory_used_bytes or 0)
        if total is not None and both > total * (1 + UNCOUNTED):
            yield f"free and used memory of `now.gpus[{at}]` are together more than the GPU has: {both} > {total}"
