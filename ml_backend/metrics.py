"""Numbers for Prometheus: HTTP requests of all web workers, and the engine's state at the time of asking."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Histogram, generate_latest, multiprocess
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

REQUESTS = Histogram(
    "aku_http_request_seconds",
    "Time to answer a request.",
    ["route", "status"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100),
)
_GAUGES = {
    "queued": "Cards that wait for a draft.",
    "running": "Cards that are being drafted.",
    "drafts_per_second": "Drafts per second over the last minute.",
    "tokens_per_second": "Drafted tokens per second over the last minute.",
}
_COUNTERS = {
    "drafts": "Drafts made.",
    "tokens": "Tokens drafted.",
    "shared": "Requests that joined a draft already under way.",
    "cached": "Requests answered by a draft made before.",
    "failed": "Cards given up after an error.",
}


class _EngineState:
    """Turns the engine's status into metrics."""

    def __init__(self, status: Mapping[str, Any] | None, gate_open: bool) -> None:
        self.status, self.gate_open = status, gate_open

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("aku_gate_open", "Whether drafts are served.", value=float(self.gate_open))
        yield GaugeMetricFamily("aku_engine_up", "Whether the engine answers.", value=float(self.status is not None))
        if self.status is None:
            return
        yield CounterMetricFamily("aku_swaps", "Checkpoints that began to serve.", value=self.status["swaps"])
        for name, text in _GAUGES.items():
            yield GaugeMetricFamily(f"aku_{name}", text, value=self.status[name])
        for name, text in _COUNTERS.items():
            yield CounterMetricFamily(f"aku_{name}", text, value=self.status[f"{name}_total"])


def exposition(status: Mapping[str, Any] | None, gate_open: bool) -> bytes:
    """Return all metrics in Prometheus' text format."""
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    registry.register(_EngineState(status, gate_open))
    return generate_latest(registry)
