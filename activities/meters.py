"""Emits the figures of models/metrics.py through Temporal's meters: of a workflow (nothing while it replays), or of an
activity. The SDK adds `_total` to counters by itself."""

from __future__ import annotations

from temporalio.common import MetricMeter

from models.metrics import Metric


def count(meter: MetricMeter, metric: Metric, by: int = 1, **labels: str) -> None:
    meter.create_counter(metric.name.removesuffix("_total"), metric.help).add(by, dict(labels))


def observe(meter: MetricMeter, metric: Metric, value: float, **labels: str) -> None:
    meter.create_histogram_float(metric.name, metric.help).record(value, dict(labels))


def show(meter: MetricMeter, metric: Metric, value: float, **labels: str) -> None:
    meter.create_gauge_float(metric.name, metric.help).set(max(0.0, value), dict(labels))
