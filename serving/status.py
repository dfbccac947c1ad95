"""`ps`: the board of the running gateway, with what the operating system knows of each engine."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec
import psutil

from deploy import output, prepare
from serving import holdings, records
from serving.service import Service


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One model. ``memory_bytes`` and ``since`` (Unix seconds) are None while no engine runs."""

    model: str
    engine: str
    revision: str
    state: str
    detail: str
    memory_bytes: int | None
    context_tokens: int
    slots: int
    running: int
    queued: int
    pid: int | None
    since: int | None


def rows(service: Service, key: str) -> tuple[Row, ...]:
    """As of now."""
    _, board = service.client(key=key).get("/status")
    engines = records.read_all()
    plans = {planned.model: planned for planned in prepare.read().plan.models}
    found = []
    for model in board["models"]:
        planned, record = plans[model["id"]], engines.get(model["id"])
        pid = record.process.pid if record and record.process.alive else None
        found.append(
            Row(
                model=planned.model,
                engine=f"{planned.engine} {planned.engine_version}",
                revision=planned.revision,
                state=model["state"],
                detail=model["detail"],
                memory_bytes=holdings.resident_bytes(pid) if pid else None,
                context_tokens=model["context_tokens"],
                slots=model["slots"],
                running=model["running"],
                queued=model["queued"],
                pid=pid,
                since=_since(pid) if pid else None,
            )
        )
    return tuple(found)


def table(found: Sequence[Row]) -> None:
    """For people; what is wrong with a model stands under its line."""
    header = ("MODEL", "ENGINE", "REVISION", "STATE", "MEMORY", "CONTEXT", "SLOTS", "RUNNING", "QUEUED", "SINCE")
    output.table(
        header,
        [
            (
                *(row.model, row.engine, row.revision, row.state, output.size(row.memory_bytes), row.context_tokens),
                *(row.slots, row.running, row.queued, _ago(row.since)),
            )
            for row in found
        ],
    )
    for row in found:
        if row.detail:
            output.data(f"{row.model}: {row.detail}")


def _since(pid: int) -> int | None:
    """Unix seconds."""
    try:
        return int(psutil.Process(pid).create_time())
    except psutil.Error:
        return None


def _ago(since: int | None) -> str | None:
    if since is None:
        return None
    seconds = max(0, int(time.time()) - since)
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"
