"""Streams with a known answer, and records and results made of them."""

from __future__ import annotations

import datetime
from collections.abc import Iterable

import msgspec

from benchmarks.cells import cell_of
from benchmarks.meter import Sample
from benchmarks.mock import event
from benchmarks.results import PROVENANCE, Calibration, Cell, Probe, Result, Server
from benchmarks.timing import Outcome, Record, Recorder, Usage
from benchmarks.workload import Workload

MS = 1_000_000
DONE = b"[DONE]"


def delta(**fields: object) -> bytes:
    """The payload of a chunk with this delta."""
    return msgspec.json.encode({"choices": [{"index": 0, "delta": fields}]})


def usage(prompt: int, completion: int, cached: int | None = None) -> bytes:
    counted: dict[str, object] = {"prompt_tokens": prompt, "completion_tokens": completion}
    if cached is not None:
        counted["prompt_tokens_details"] = {"cached_tokens": cached}
    return msgspec.json.encode({"choices": [], "usage": counted})


def role_event() -> bytes:
    return event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})


def played(events: Iterable[tuple[float, bytes]], *, end_ms: float) -> Record:
    """The record of a request sent at 0 whose events came at these milliseconds."""
    recorder = Recorder(t_sched_ns=0, t_send_ns=0)
    for at_ms, payload in events:
        recorder.feed(int(at_ms * MS), payload)
    return recorder.close(int(end_ms * MS))


def record(
    start_ms: float,
    end_ms: float,
    *,
    chunks_ms: tuple[float, ...] = (),
    tokens: int | None = None,
    prompt: int = 100,
    cached: int | None = None,
    outcome: Outcome = Outcome.OK,
) -> Record:
    """A finished request; without ``tokens`` the server sent no usage."""
    counted = None if tokens is None else Usage(prompt_tokens=prompt, completion_tokens=tokens, cached_tokens=cached)
    return Record(
        t_sched_ns=int(start_ms * MS),
        t_send_ns=int(start_ms * MS),
        chunks_ns=tuple(int(stamp * MS) for stamp in chunks_ms),
        t_done_ns=int(end_ms * MS),
        usage=counted,
        finish_reason="length",
        outcome=outcome,
    )


def steady_records(concurrency: int, each: int, *, cached: int | None = 0, prompt: int = 100) -> list[Record]:
    """``each`` requests of one second in turn per place, ten tokens each, one every 100 ms."""
    return [
        record(
            start,
            start + 1000,
            chunks_ms=tuple(start + 100 * step for step in range(1, 11)),
            tokens=10,
            prompt=prompt,
            cached=cached,
        )
        for turn in range(each)
        for start in [turn * 1000.0] * concurrency
    ]


WORKLOAD = Workload(seed=0, prompt_tokens=100, output_tokens=10, mode="capacity")
PROBE = Probe(template_tokens_cached=0, ignores_eos=True, request_ms=1000)


def calm(seconds: int) -> list[Sample]:
    """Samples of a harness that is never late and uses a tenth of a core."""
    return [Sample(step * 10 * MS, 0, step * MS) for step in range(seconds * 100)]


def cell(records: list[Record], *, concurrency: int = 1, replicate: int = 0, warmups: int = 0) -> Cell:
    return cell_of(
        records,
        calm(60),
        name=f"c{concurrency}-r{replicate}",
        concurrency=concurrency,
        replicate=replicate,
        warmups=warmups,
        workload=WORKLOAD,
        probe=PROBE,
    )


def result(*cells: Cell) -> Result:
    return Result(
        run_id="ab" * 16,
        started=datetime.datetime(2026, 11, 24, 7, 0, tzinfo=datetime.UTC),
        harness="0.0.0",
        command=("ownweights", "bench"),
        valid=True,
        server=Server(url="http://127.0.0.1:1/v1", model="chat", engine="llamacpp", engine_version="1", lock="0" * 12),
        workload=WORKLOAD,
        workload_sha256=WORKLOAD.sha256,
        probe=PROBE,
        calibration=Calibration(
            concurrency=1,
            requests=10,
            true_ttft_ms=20,
            true_tpot_ms=10,
            ttft_error_p50_ms=1,
            ttft_error_max_ms=2,
            tpot_error_p50_ms=0.1,
        ),
        cells=cells,
        provenance=PROVENANCE,
    )
