"""From the records of one load to its cell in the result document. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from benchmarks.checks import judge
from benchmarks.intervals import Summary, summarise
from benchmarks.meter import Sample, cpu_percent, loop_lag_p99_ms
from benchmarks.results import Cell, Counts, Flow, Latencies, Probe, Span, Strain, Tokens
from benchmarks.timing import Record
from benchmarks.window import NS_PER_S, Window, is_short, rates, steady
from benchmarks.workload import Workload


def cell_of(
    records: Sequence[Record],
    samples: Sequence[Sample],
    *,
    name: str,
    concurrency: int,
    replicate: int,
    warmups: int,
    workload: Workload,
    probe: Probe,
) -> Cell:
    """Latencies are those of the requests that ended well inside the window; failures are in the counts."""
    window = steady(records, concurrency, warmups=warmups)
    inside = [record for record in records if record.ok and window and window.holds(record.t_done_ns)]
    strain = Strain(
        cpu_percent=cpu_percent(samples, window) if window else None,
        loop_lag_p99_ms=loop_lag_p99_ms(samples, window) if window else None,
    )
    return Cell(
        name=name,
        concurrency=concurrency,
        replicate=replicate,
        window=_span(records, window) if window else None,
        counts=_counts(records, inside, warmups),
        tokens=_tokens(inside),
        rates=rates(records, window) if window else None,
        latencies_ms=_latencies(inside),
        client=strain,
        checks=judge(
            records,
            window,
            strain,
            template_tokens_cached=probe.template_tokens_cached,
            exact_tokens=workload.output_tokens if workload.mode == "capacity" else None,
        ),
        flows=_flows(records, window) if window else (),
    )


def _span(records: Sequence[Record], window: Window) -> Span:
    begin_ns = min(record.t_sched_ns for record in records)
    run_s = (max(record.t_done_ns for record in records) - begin_ns) / NS_PER_S
    return Span(
        start_s=(window.start_ns - begin_ns) / NS_PER_S,
        seconds=window.seconds,
        short=is_short(window, run_s),
    )


def _counts(records: Sequence[Record], inside: Sequence[Record], warmups: int) -> Counts:
    failures = [record for record in records if not record.ok]
    return Counts(
        sent=len(records),
        warmup=min(warmups, len(records)),
        in_window=len(inside),
        ok=sum(record.ok for record in records),
        failed=dict(Counter(str(record.outcome) for record in failures)),
        first_failure=f"{failures[0].outcome}: {failures[0].detail or 'no detail'}" if failures else None,
        resent=sum(record.resent for record in records),
        finish_reasons=dict(Counter(record.finish_reason or "none" for record in records if record.ok)),
    )


def _tokens(inside: Sequence[Record]) -> Tokens:
    usages = [record.usage for record in inside if record.usage]
    if not usages or len(usages) < len(inside):
        return Tokens(prompt=None, cached=None, output=None, source="uncounted")
    told = [usage.cached_tokens for usage in usages if usage.cached_tokens is not None]
    return Tokens(
        prompt=sum(usage.prompt_tokens for usage in usages),
        cached=sum(told) if told else None,
        output=sum(usage.completion_tokens for usage in usages),
        source="usage",
    )


def _latencies(inside: Sequence[Record]) -> Latencies:
    def over(metric: Callable[[Record], float | None]) -> Summary | None:
        return summarise([value for record in inside if (value := metric(record)) is not None])

    return Latencies(
        ttft=over(lambda record: record.ttft_ms),
        ttfa=over(lambda record: record.ttfa_ms),
        tpot=over(lambda record: record.tpot_ms),
        icl=summarise([gap for record in inside for gap in record.gaps_ms]),
        e2el=over(lambda record: record.e2el_ms),
        dispatch=over(lambda record: record.dispatch_ms),
    )


def _flows(records: Sequence[Record], window: Window) -> tuple[Flow, ...]:
    """The same tokens that make the rates, request by request."""
    flows = []
    for record in records:
        output = record.tokens_between(window.start_ns, window.end_ns) if record.ok else None
        if record.usage is None or output is None:
            continue
        read_inside = window.holds(record.chunks_ns[0])
        if output or read_inside:
            cached = record.usage.cached_tokens or 0
            flows.append(
                Flow(
                    prompt_tokens=record.usage.prompt_tokens,
                    input_tokens=record.usage.prompt_tokens - cached if read_inside else 0,
                    cached_tokens=cached if read_inside else 0,
                    output_tokens=output,
                )
            )
    return tuple(flows)
