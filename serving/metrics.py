"""Counters and gauges under stable names, in a registry of our own. They carry counts, never a word of a prompt."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as CONTENT_TYPE

from serving.board import Board, State

__all__ = ["CONTENT_TYPE", "NO_MODEL", "Metrics", "Tokens"]

NO_MODEL = "none"
"""The label of requests that were refused before a model was found."""

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Of one answer. ``reported`` is False where the engine gave no usage: then events were counted instead."""

    prompt: int = 0
    cached: int = 0
    completion: int = 0
    reported: bool = True


class _Model:
    """The series of one model, looked up once: label lookups cost more than counting."""

    def __init__(self, metrics: Metrics, name: str) -> None:
        self._requests = metrics.requests
        self._tokens = metrics.tokens
        self._name = name
        self._by_status: dict[int, Counter] = {}
        self._by_kind: dict[tuple[str, str], Counter] = {}
        self.duration = metrics.duration.labels(name)
        self.ttft = metrics.ttft.labels(name)

    def status(self, status: int) -> Counter:
        if status not in self._by_status:
            self._by_status[status] = self._requests.labels(self._name, str(status))
        return self._by_status[status]

    def tokens(self, kind: str, source: str) -> Counter:
        if (kind, source) not in self._by_kind:
            self._by_kind[kind, source] = self._tokens.labels(self._name, kind, source)
        return self._by_kind[kind, source]


class Metrics:
    """What the gateway counts. All methods are cheap but ``render``, which belongs off the event loop."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for every counter, of no use to anybody here
        registry = self._registry = CollectorRegistry()
        model = ["model"]
        self.requests = Counter(
            "ownweights_requests",
            "Requests by their end: the HTTP status, 499 where the client left",
            [*model, "status"],
            registry=registry,
        )
        self.tokens = Counter(
            "ownweights_tokens",
            "Tokens by kind; source is the engine's usage, or the events passed on where it gave none",
            [*model, "kind", "source"],
            registry=registry,
        )
        self.ttft = Histogram(
            "ownweights_ttft_seconds",
            "From the request's last byte to the engine's first, the queue included",
            model,
            buckets=_SECONDS,
            registry=registry,
        )
        self.duration = Histogram(
            "ownweights_request_duration_seconds",
            "From the request's last byte to the answer's",
            model,
            buckets=_SECONDS,
            registry=registry,
        )
        self.running = Gauge("ownweights_running_requests", "Requests at an engine", model, registry=registry)
        self.queued = Gauge("ownweights_queued_requests", "Requests in line for a slot", model, registry=registry)
        self.state = Gauge(
            "ownweights_engine_state", "1 for the state the engine is in", [*model, "state"], registry=registry
        )
        self._models: dict[str, _Model] = {}

    def ended(self, model: str, status: int, *, duration_s: float, ttft_s: float | None, tokens: Tokens | None) -> None:
        """One request on the hot path is over."""
        series = self._series(model)
        series.status(status).inc()
        series.duration.observe(duration_s)
        if ttft_s is not None:
            series.ttft.observe(ttft_s)
        if tokens:
            source = "engine" if tokens.reported else "events"
            series.tokens("completion", source).inc(tokens.completion)
            if tokens.reported:
                series.tokens("prompt", source).inc(tokens.prompt)
                series.tokens("cached", source).inc(tokens.cached)

    def refused(self, status: int) -> None:
        """One request was turned away at the door."""
        self._series(NO_MODEL).status(status).inc()

    def look(self, board: Board) -> None:
        """Copy the board's counts and states; on the loop that owns the board."""
        for entry in board:
            name = entry.served.name
            self.running.labels(name).set(entry.running)
            self.queued.labels(name).set(entry.queued)
            for state in State:
                self.state.labels(name, state.value).set(entry.state is state)

    def render(self) -> bytes:
        """Prometheus text format."""
        return generate_latest(self._registry)

    def _series(self, model: str) -> _Model:
        if model not in self._models:
            self._models[model] = _Model(self, model)
        return self._models[model]
