"""A result as Markdown: one row per operating point, with the definitions under it. Pure."""

from __future__ import annotations

from statistics import fmean

from benchmarks.intervals import Summary, t_interval
from benchmarks.markdown import UNKNOWN, bullets, table
from benchmarks.results import Cell, Check, Result

HEADER = (
    "c",
    "n",
    "output tok/s",
    "input tok/s",
    "TTFT p50",
    "TTFT p95",
    "TPOT p50",
    "TPOT p95",
    "ICL p99",
    "E2EL p50",
    "tok/s per user",
    "window",
    "checks",
)

DEFINITIONS = (
    "c: requests in flight, held constant. n: requests that ended well inside the steady window; the latencies, "
    "in ms, are theirs",
    "TTFT: from sending to the first chunk that bears a token (a role or an empty chunk bears none). "
    "TPOT: per token after the first, by the server's own count. ICL: gap between chunks. "
    "E2EL: from sending to the last token. tok/s per user: 1 / TPOT p50",
    "output tok/s: tokens that came inside the window / window. "
    "input tok/s: prompt tokens read there, without those from the server's cache",
    "`*`: n is too small for a 95 % interval of that percentile (p50 needs 6, p95 72, p99 368), so it claims nothing",
    "short: the window is below 10 s or a tenth of its cell",
)


def report(result: Result) -> str:
    """The whole report of one result document."""
    warning = [] if result.valid else [f"**Not valid: {result.invalid_because}. Not to be priced or quoted.**"]
    parts = [
        _title(result),
        *warning,
        table(HEADER, [_row(cell) for cell in result.cells]),
        "Findings",
        bullets((*_intervals(result), *_checked(result), *_circumstances(result))),
        "Definitions",
        bullets(DEFINITIONS),
    ]
    return "\n\n".join(parts)


def _title(result: Result) -> str:
    server, work = result.server, result.workload
    engine = " ".join(part for part in (server.engine, server.engine_version) if part) or "an unknown engine"
    mode = "every answer at full length" if work.mode == "capacity" else "the model ends its answers itself"
    revision = f"revision {server.revision[:12]}" if server.revision else "revision unknown"
    lock = f"lock {server.lock[:12]}" if server.lock else "lock unknown"
    return _under(
        f"# {server.model} on {engine}",
        f"measured {result.started:%Y-%m-%d %H:%M} UTC at {server.url}, {revision}, {lock}, {_hardware(result)}",
        f"{work.mode} mode ({mode}), closed loop, fresh prompts of about {work.prompt_tokens} tokens, "
        f"at most {work.output_tokens} out; workload {result.workload_sha256[:12]}, seed {work.seed}",
    )


def _under(title: str, *lines: str) -> str:
    return f"{title}\n\n{bullets(lines)}"


def _hardware(result: Result) -> str:
    hardware = result.server.hardware
    if hardware is None:
        return "hardware unknown"
    gpus = "".join(f", {gpu.name or 'a GPU without a name'}" for gpu in hardware.gpus)
    return f"{hardware.cpu.model or 'CPU unknown'} ({hardware.cores} cores){gpus}"


def _row(cell: Cell) -> list[str | None]:
    lat, rates, window = cell.latencies_ms, cell.rates, cell.window
    return [
        f"{cell.concurrency} #{cell.replicate + 1}" if cell.replicate else str(cell.concurrency),
        str(cell.counts.in_window),
        _number(rates.output_tokens if rates else None),
        _number(rates.input_tokens if rates else None),
        _ms(lat.ttft, "p50"),
        _ms(lat.ttft, "p95"),
        _ms(lat.tpot, "p50"),
        _ms(lat.tpot, "p95"),
        _ms(lat.icl, "p99"),
        _ms(lat.e2el, "p50"),
        _number(1000 / lat.tpot.p50 if lat.tpot else None),
        f"{window.seconds:.0f} s{', short' if window.short else ''}" if window else "none",
        "ok" if cell.usable else "FAILED",
    ]


def _intervals(result: Result) -> list[str]:
    """Output rate per concurrency over its replicates."""
    if not any(cell.replicate for cell in result.cells):
        return ["no interval: one replicate (`--replicates 3` gives one)"]
    lines = []
    for concurrency in result.concurrencies:
        found = [cell.rates.output_tokens for cell in result.replicates(concurrency) if cell.usable and cell.rates]
        known = [rate for rate in found if rate is not None]
        interval = t_interval(known)
        said = (
            f"95 % [{interval.low:.1f}, {interval.high:.1f}]" if interval else "no interval: it needs three replicates"
        )
        mean = f"{fmean(known):.1f}" if known else "unknown"
        lines.append(f"c = {concurrency}: {mean} output tok/s over {len(known)} replicates, {said}")
    return lines


def _checked(result: Result) -> list[str]:
    """What did not pass; one line where all did."""
    lines = [
        f"c = {cell.concurrency}: {check.name} {_verdict(check)} ({check.detail})"
        for cell in result.cells
        for check in cell.checks
        if check.verdict != "pass"
    ]
    errors = [
        f"c = {cell.concurrency}: {sum(cell.counts.failed.values())} of {cell.counts.sent} requests failed, "
        f"the first by {cell.counts.first_failure}"
        for cell in result.cells
        if cell.counts.failed
    ]
    return [*lines, *errors] or ["every check passed: " + ", ".join(_names(result))]


def _names(result: Result) -> list[str]:
    return list(dict.fromkeys(check.name for cell in result.cells for check in cell.checks))


def _verdict(check: Check) -> str:
    value = UNKNOWN if check.value is None else f"{check.value:.3g}"
    limit = "" if check.limit is None else f", limit {check.limit:g}"
    return f"is {value}{limit}: FAILED" if check.verdict == "fail" else f"is {value}"


def _circumstances(result: Result) -> list[str]:
    harness = result.calibration
    cpu = max((cell.client.cpu_percent or 0 for cell in result.cells), default=0)
    lag = max((cell.client.loop_lag_p99_ms or 0 for cell in result.cells), default=0)
    return [
        *_sizes(result),
        *_queued(result),
        f"the harness's own error against a mock of TTFT {harness.true_ttft_ms:g} ms and TPOT "
        f"{harness.true_tpot_ms:g} ms at c = {harness.concurrency}: TTFT {harness.ttft_error_p50_ms:+.1f} ms (p50), "
        f"{harness.ttft_error_max_ms:+.1f} ms (worst), TPOT {harness.tpot_error_p50_ms:+.2f} ms (p50)",
        f"the harness under this load: at most {cpu:.0f} % of a core, event loop late by {lag:.1f} ms (p99)",
    ]


def _queued(result: Result) -> list[str]:
    slots = result.server.slots
    if slots is None or max(result.concurrencies, default=0) <= slots:
        return []
    return [f"the server works on {slots} requests at once: above c = {slots} the wait for a place is in TTFT"]


def _sizes(result: Result) -> list[str]:
    n = sum(cell.counts.in_window for cell in result.cells if cell.tokens.source == "usage")
    if not n:
        return ["uncounted: the server sends no usage, so there are latencies only"]
    prompt = sum(cell.tokens.prompt or 0 for cell in result.cells) / n
    output = sum(cell.tokens.output or 0 for cell in result.cells) / n
    shared = result.probe.template_tokens_cached
    cached = (
        "whether any come from a cache it does not say"
        if shared is None
        else f"{shared} of them the template's, cached"
    )
    return [f"by the server's count {prompt:.0f} prompt tokens per request ({cached}) and {output:.0f} out"]


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.1f}"


def _ms(summary: Summary | None, name: str) -> str | None:
    if summary is None:
        return None
    value = float(getattr(summary, name))
    digits = 0 if value >= 100 else 1
    return f"{value:.{digits}f}{'*' if name in summary.unproven else ''}"
