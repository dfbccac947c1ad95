"""The steady part of a load, and the rates in it. Pure.

A request holds its place from ``t_sched`` (in a closed loop: the moment its predecessor ended) to ``t_done``, so
the harness's own hand-over does not look like idle load. The window is the longest span with at least 0.95·c
places held, and it opens only after the last warm-up request has ended: warm-up hands over without draining.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from benchmarks.timing import Record

STEADY_SHARE = 0.95
LEAST_WINDOW_S = 10.0
LEAST_SHARE_OF_RUN = 0.1
NS_PER_S = 1e9


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """(start, end] on the run's clock."""

    start_ns: int
    end_ns: int

    @property
    def seconds(self) -> float:
        return (self.end_ns - self.start_ns) / NS_PER_S

    def holds(self, stamp_ns: int) -> bool:
        return self.start_ns < stamp_ns <= self.end_ns


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Per second of the window. Token rates are None where an answer came without usage: uncounted."""

    requests: float
    input_tokens: float | None
    """Prompt tokens computed: without those the server took from its cache."""
    cached_tokens: float | None
    output_tokens: float | None


def steady(records: Sequence[Record], concurrency: int, *, warmups: int) -> Window | None:
    """None where the load never was steady after the first ``warmups`` records (in order of sending)."""
    ordered = sorted(records, key=lambda record: record.t_sched_ns)
    opens_ns = max((record.t_done_ns for record in ordered[:warmups]), default=0)
    spans = [
        Window(start_ns=max(start, opens_ns), end_ns=end)
        for start, end in _spans(ordered, STEADY_SHARE * concurrency)
        if end > opens_ns
    ]
    return max(spans, key=lambda span: span.seconds, default=None)


def is_short(window: Window, run_s: float) -> bool:
    """Too short to publish: below ten seconds or a tenth of the run."""
    return window.seconds < max(LEAST_WINDOW_S, LEAST_SHARE_OF_RUN * run_s)


def rates(records: Sequence[Record], window: Window) -> Rates:
    """Over the requests that ended well. A straddling one counts with the tokens that came inside;
    a prompt counts where its first token came.
    """
    good = [record for record in records if record.ok]
    prompts = [record for record in good if record.chunks_ns and window.holds(record.chunks_ns[0])]
    counted = all(record.usage for record in good)
    cached = sum(record.usage.cached_tokens or 0 for record in prompts if record.usage)
    prompt = sum(record.usage.prompt_tokens for record in prompts if record.usage)
    output = sum(record.tokens_between(window.start_ns, window.end_ns) or 0.0 for record in good)
    return Rates(
        requests=sum(window.holds(record.t_done_ns) for record in good) / window.seconds,
        input_tokens=(prompt - cached) / window.seconds if counted else None,
        cached_tokens=cached / window.seconds if counted else None,
        output_tokens=output / window.seconds if counted else None,
    )


def _spans(records: Sequence[Record], least: float) -> Iterator[tuple[int, int]]:
    """(start, end) of every span with at least ``least`` requests in flight."""
    starts = [(record.t_sched_ns, 0, 1) for record in records]
    ends = [(record.t_done_ns, 1, -1) for record in records]
    in_flight, since = 0, None
    # At one and the same stamp the successor starts before its predecessor ends: the place was never free.
    for stamp_ns, _, change in sorted(starts + ends):
        in_flight += change
        if in_flight >= least and since is None:
            since = stamp_ns
        elif in_flight < least and since is not None:
            yield since, stamp_ns
            since = None
