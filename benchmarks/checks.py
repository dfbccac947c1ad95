"""The rules a measured point has to keep, each a verdict with its value and its limit. Pure.

A failed check voids the point: it is shown, and never priced.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.results import Check, Strain, Verdict
from benchmarks.timing import Record
from benchmarks.window import Window

ERROR_RATE_LIMIT = 0.01
CACHE_HIT_LIMIT = 0.01
CLIENT_CPU_LIMIT_PERCENT = 70.0
LOOP_LAG_LIMIT_MS = 5.0


def judge(
    records: Sequence[Record],
    window: Window | None,
    strain: Strain,
    *,
    template_tokens_cached: int | None,
    exact_tokens: int | None,
) -> tuple[Check, ...]:
    """All checks of a cell. ``exact_tokens``: the length each answer must have, in capacity mode only."""
    good = [record for record in records if record.ok]
    failed = len(records) - len(good)
    checks = [
        _limit("error rate", failed / len(records) if records else 1.0, ERROR_RATE_LIMIT, "failed / sent"),
        Check(
            name="steady window",
            verdict="pass" if window else "fail",
            detail="a span with at least 0.95 of the places held, after the warm-up",
        ),
        _limit("client CPU", strain.cpu_percent, CLIENT_CPU_LIMIT_PERCENT, "percent of one core"),
        _limit("loop lag", strain.loop_lag_p99_ms, LOOP_LAG_LIMIT_MS, "p99, ms: the harness itself was late"),
        _cache(good, template_tokens_cached),
        _counted(good),
    ]
    return (*checks, _exact(good, exact_tokens)) if exact_tokens else tuple(checks)


def _limit(name: str, value: float | None, limit: float, detail: str) -> Check:
    verdict: Verdict = "unknown" if value is None else "pass" if value <= limit else "fail"
    return Check(name=name, verdict=verdict, value=value, limit=limit, detail=detail)


def _cache(good: Sequence[Record], template_tokens_cached: int | None) -> Check:
    """Nothing but the template's beginning may come out of the cache: the prompts share nothing else."""
    usages = [record.usage for record in good if record.usage]
    shared = template_tokens_cached or 0
    told = [usage for usage in usages if usage.cached_tokens is not None]
    excess = sum(max(0, (usage.cached_tokens or 0) - shared) for usage in told)
    prompt = sum(usage.prompt_tokens for usage in told)
    detail = f"prompt tokens from cache beyond the template's {shared}, of all; the prompts are fresh"
    return _limit("prefix cache", excess / prompt if prompt else None, CACHE_HIT_LIMIT, detail)


def _counted(good: Sequence[Record]) -> Check:
    """Unknown, not failed: latencies without token counts are still latencies."""
    missing = sum(record.usage is None for record in good)
    return Check(
        name="token counts",
        verdict="unknown" if missing or not good else "pass",
        value=float(missing),
        detail="answers without `usage`; with any, the point is uncounted: latency only",
    )


def _exact(good: Sequence[Record], exact_tokens: int) -> Check:
    off = sum(record.usage is not None and record.usage.completion_tokens != exact_tokens for record in good)
    return Check(
        name="answer length",
        verdict="fail" if off else "pass",
        value=float(off),
        limit=0.0,
        detail=f"answers that are not {exact_tokens} tokens long, though their end was to be ignored",
    )
