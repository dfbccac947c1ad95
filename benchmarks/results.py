"""The result document: one JSON file per run, everything needed to judge, repeat and price it.

Unknown stays null. Written aside and renamed in, so a file that is there is whole.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Literal

import msgspec

from benchmarks.intervals import Summary
from benchmarks.window import Rates
from benchmarks.workload import Workload
from deploy import atomic, output, paths
from deploy.errors import UserError
from deploy.hardware import Hardware

KIND = "ownweights-bench"
SCHEMA = 1
Provenance = Literal["measured", "predicted", "user", "third-party"]
Verdict = Literal["pass", "fail", "unknown"]


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """A rule the point has to keep. ``unknown``: the server does not say what the rule needs."""

    name: str
    verdict: Verdict
    value: float | None = None
    limit: float | None = None
    detail: str


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """The steady window. ``short``: below 10 s or a tenth of the cell, not fit for publishing."""

    start_s: float
    """After the start of the cell."""
    seconds: float
    short: bool


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """Requests of the cell. ``in_window`` ended inside the window: the latencies are theirs."""

    sent: int
    warmup: int
    in_window: int
    ok: int
    failed: dict[str, int]
    """By outcome."""
    first_failure: str | None
    finish_reasons: dict[str, int]
    resent: int
    """Sends that met a kept connection the server had closed; their time is in the latencies."""


class Tokens(msgspec.Struct, frozen=True, kw_only=True):
    """Of the requests that ended inside the window, from the server's ``usage``. None: uncounted."""

    prompt: int | None
    cached: int | None
    output: int | None
    source: Literal["usage", "uncounted"]


class Latencies(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds; definitions in benchmarks.timing. None: no request had it."""

    ttft: Summary | None
    ttfa: Summary | None
    tpot: Summary | None
    icl: Summary | None
    e2el: Summary | None
    dispatch: Summary | None
    """How late the harness sent."""


class Strain(msgspec.Struct, frozen=True, kw_only=True):
    """The harness inside the window: CPU in percent of one core, lateness of its event loop."""

    cpu_percent: float | None
    loop_lag_p99_ms: float | None


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """What one counted request put into the window: an API would bill these tokens, at this prompt length."""

    prompt_tokens: int
    """Of the whole request: tiers go by it."""
    input_tokens: int
    """Prompt tokens without the cached; 0 where the prompt was read outside the window."""
    cached_tokens: int
    output_tokens: float
    """Those that came inside the window."""


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One operating point, once: a concurrency and a replicate."""

    name: str
    load_model: Literal["closed"] = "closed"
    concurrency: int
    replicate: int
    window: Span | None
    counts: Counts
    tokens: Tokens
    rates: Rates | None
    latencies_ms: Latencies
    client: Strain
    checks: tuple[Check, ...]
    flows: tuple[Flow, ...]

    @property
    def usable(self) -> bool:
        """No check failed. Only such a cell is priced."""
        return not self.failed_checks

    @property
    def failed_checks(self) -> list[Check]:
        return [check for check in self.checks if check.verdict == "fail"]


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """Who answered, as far as its receipts and /v1/models say."""

    url: str
    model: str
    revision: str | None = None
    engine: str | None = None
    engine_version: str | None = None
    lock: str | None = None
    """First digits of the lock's sha256."""
    context_tokens: int | None = None
    slots: int | None = None
    """Requests it serves at once; more of them wait."""
    hardware: Hardware | None = None
    """Known only where the server is this machine."""


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """What was found out before the load."""

    template_tokens_cached: int | None
    """Prompt tokens that every request shares (the chat template's beginning) and the server caches."""
    ignores_eos: bool
    """Whether ``ignore_eos`` was accepted and did what it says."""
    request_ms: float
    """Rough time of one request of this workload, for the ramp and the forecast."""


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """Errors in milliseconds: what was measured minus what is true."""

    concurrency: int
    requests: int
    true_ttft_ms: float
    true_tpot_ms: float
    ttft_error_p50_ms: float
    ttft_error_max_ms: float
    tpot_error_p50_ms: float


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The document. ``valid`` is False for a run that did not come to its end; it is never priced."""

    kind: Literal["ownweights-bench"] = "ownweights-bench"
    schema: Literal[1] = 1
    run_id: str
    started: datetime.datetime
    harness: str
    """Version of ownweights."""
    command: tuple[str, ...]
    valid: bool
    invalid_because: str | None = None
    server: Server
    workload: Workload
    workload_sha256: str
    probe: Probe
    calibration: Calibration
    cells: tuple[Cell, ...]
    provenance: dict[str, Provenance]

    @property
    def concurrencies(self) -> list[int]:
        return sorted({cell.concurrency for cell in self.cells})

    def replicates(self, concurrency: int) -> list[Cell]:
        return [cell for cell in self.cells if cell.concurrency == concurrency]


PROVENANCE: dict[str, Provenance] = {
    "server": "third-party",
    "server.hardware": "measured",
    "workload": "user",
    "probe": "measured",
    "calibration": "measured",
    "cells": "measured",
}


class _Head(msgspec.Struct):
    kind: str | None = None
    schema: int | None = None


def file_name(result: Result) -> str:
    """Sorts by time."""
    return f"{result.started:%Y%m%dT%H%M%SZ}-{result.run_id[:8]}.json"


def write(result: Result, path: Path | None = None) -> Path:
    """To ``path`` or the results folder. Raises UserError where that cannot be written."""
    path = path or paths.results_dir() / file_name(result)
    try:
        atomic.write(path, msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")
    except OSError as error:
        raise UserError(
            f"the result cannot be written: {error.strerror}", where=str(path), hint="--output FILE"
        ) from error
    return path


def read(path: Path) -> Result:
    """Raises UserError that says what the file is instead of a result this version can read."""
    try:
        document = path.read_bytes()
    except OSError as error:
        raise UserError(f"the result cannot be read: {error.strerror}", where=str(path)) from error
    try:
        head = msgspec.json.decode(document, type=_Head)
    except msgspec.DecodeError as error:
        raise UserError("not a benchmark result: it is not such JSON", where=str(path), hint="make bench") from error
    if head.kind != KIND:
        raise UserError(f"not a benchmark result: its `kind` is not {KIND}", where=str(path), hint="make bench")
    if head.schema != SCHEMA:
        raise UserError(
            f"the result has schema {head.schema}, this ownweights reads schema {SCHEMA}",
            where=str(path),
            hint="make bench, with this version",
        )
    try:
        return msgspec.json.decode(document, type=Result)
    except msgspec.ValidationError as error:
        raise UserError(f"the result is damaged: {error}", where=str(path), hint="make bench") from error


def newest(folder: Path) -> tuple[Result, Path]:
    """The newest run that came to its end. Raises UserError where there is none."""
    for path in sorted(folder.glob("*.json"), reverse=True):
        result = read(path)
        if result.valid:
            return result, path
        output.warn(f"passing over {path.name}: {result.invalid_because}")
    raise UserError("no finished benchmark result yet", where=str(folder), hint="make bench")
