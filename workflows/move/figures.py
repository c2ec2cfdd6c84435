"""Figures of moves that ended, for Prometheus: what a workflow adds to them, once and never in a replay."""

from __future__ import annotations

from temporalio import workflow

from models import metrics
from models.migration import MigrationOutcome

with workflow.unsafe.imports_passed_through():
    from activities import meters


def moved(outcome: MigrationOutcome, seconds: float) -> None:
    meter = workflow.metric_meter()
    _ended("moved", seconds)
    meters.count(meter, metrics.RAW, outcome.raw_bytes)
    meters.count(meter, metrics.WIRE, outcome.wire_bytes)
    meters.count(meter, metrics.REDIALS, outcome.redials)
    meters.observe(meter, metrics.DOWNTIME, outcome.downtime_ms / 1000)
    if outcome.raw_bytes and outcome.wire_bytes:
        meters.observe(meter, metrics.RATIO, outcome.raw_bytes / outcome.wire_bytes)


def failed(kind: str, seconds: float) -> None:
    _ended(kind, seconds)


def two_copies() -> None:
    meters.count(workflow.metric_meter(), metrics.TWO_COPIES)


def had_its_slot(waited: float) -> None:
    meters.observe(workflow.metric_meter(), metrics.SLOT_WAIT, waited)


def decided(action: str) -> None:
    meters.count(workflow.metric_meter(), metrics.DECISIONS, action=action)


def _ended(outcome: str, seconds: float) -> None:
    meters.count(workflow.metric_meter(), metrics.MOVES, outcome=outcome)
    meters.observe(workflow.metric_meter(), metrics.DURATION, seconds, outcome=outcome)
