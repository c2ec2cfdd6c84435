"""Metrics of moves to clouds, counted by the workflow: once, however often it is replayed."""

from __future__ import annotations

from temporalio import workflow

from models import metrics
from models.cloud_move import DiskSent

with workflow.unsafe.imports_passed_through():
    from activities import meters


def cache_look(place: str, sent: DiskSent) -> None:
    """A disk was sent for the first time, from a base or whole."""
    meter = workflow.metric_meter()
    meters.count(meter, metrics.CACHE_LOOKS, place=place, outcome="hit" if sent.origin else "miss")
    meters.count(meter, metrics.CACHE_SENT, sent.bytes, place=place)
    meters.count(meter, metrics.CACHE_SAVED, sent.saved, place=place)
