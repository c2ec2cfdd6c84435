"""Every figure of ours that Prometheus sees: its name, unit, labels and what it means, in this one place.

Names are complete as Prometheus shows them: with their unit, and `_total` on what only grows. docs/metrics.md is held
to this table by a test. Temporal's SDK adds the labels namespace, task_queue (whose end is the site, or the host) and
the type of workflow or activity.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True)
class Metric:
    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    """Upper bounds of a histogram's buckets."""


MOVES = Metric(
    "novacron_moves_total",
    "counter",
    "Moves that ended. outcome: moved, or the type of the failure (Cancelled, Refused, MigrationFailed ...).",
    ("outcome",),
)
RAW = Metric("novacron_move_raw_bytes_total", "counter", "Bytes QEMU and libvirt wrote into data paths of moved VMs.")
WIRE = Metric(
    "novacron_move_wire_bytes_total", "counter", "Bytes those data paths put on the link, before TLS framing."
)
RATIO = Metric(
    "novacron_move_ratio",
    "histogram",
    "Raw over wire bytes of each moved VM: 3 is three times less on the link.",
    buckets=(0.9, 1, 1.5, 2, 3, 4, 6, 8, 12, 20, 50, 100),
)
DOWNTIME = Metric(
    "novacron_move_downtime_seconds",
    "histogram",
    "Final pause of each moved VM, libvirt's own figure.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5, 10, 30),
)
DURATION = Metric(
    "novacron_move_duration_seconds",
    "histogram",
    "From the start of a move's workflow to its end, by outcome.",
    ("outcome",),
    buckets=(1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400),
)
REDIALS = Metric("novacron_redials_total", "counter", "Lanes that were lost and dialled again in moves that went well.")
SLOT_WAIT = Metric(
    "novacron_slot_wait_seconds",
    "histogram",
    "How long moves waited until they had their slot, where the site bounds how many run at once; who need not is 0.",
    buckets=(0, 1, 5, 15, 60, 300, 900, 1800, 3600, 7200, 21600),
)
TWO_COPIES = Metric(
    "novacron_two_copies_total",
    "counter",
    "Verdicts that two copies of one VM may be alive. Each needs a person at once.",
)
DECISIONS = Metric(
    "novacron_decisions_total", "counter", "Decisions taken during moves, by what was done.", ("action",)
)
DEAD_LETTERS = Metric(
    "novacron_event_dead_letters_total",
    "counter",
    "Events that a webhook did not take within a day: given up, noted in their delivery workflow.",
    ("webhook",),
)
POSTS = Metric(
    "novacron_webhook_posts_total",
    "counter",
    "Attempts to deliver an event. outcome: delivered, or failed (it is tried again).",
    ("webhook", "outcome"),
)
LEASE_CALLS = Metric(
    "novacron_lease_calls_total",
    "counter",
    "Questions to the owner records. outcome: answered, refused (someone else holds the VM), or unavailable.",
    ("outcome",),
)
LOOKS = Metric(
    "novacron_maintenance_looks_total",
    "counter",
    "Looks at a host in maintenance. outcome: drained, incomplete (what is left was to be skipped), or waiting (VMs "
    "are left, or it does not answer).",
    ("host", "outcome"),
)
CACHE_LOOKS = Metric(
    "novacron_cloud_cache_looks_total",
    "counter",
    "Disks that were sent to a cloud for the first time where the place keeps bases. outcome: hit (made from one), "
    "miss (sent whole).",
    ("place", "outcome"),
)
CACHE_SENT = Metric(
    "novacron_cloud_cache_sent_bytes_total", "counter", "Bytes of these disks that were sent.", ("place",)
)
CACHE_SAVED = Metric(
    "novacron_cloud_cache_saved_bytes_total",
    "counter",
    "Bytes of these disks that were not sent, because a base had them.",
    ("place",),
)
RUNNING = Metric("novacron_running_moves", "gauge", "Moves that leave this host now, by phase.", ("host", "phase"))
STALLED = Metric(
    "novacron_stalled_moves", "gauge", "Of these, moves that carried nothing for the last minute.", ("host",)
)
LATE = Metric("novacron_late_moves", "gauge", "Of these, moves past their finish_within or finish_by.", ("host",))
LINK_LOST = Metric("novacron_link_lost_moves", "gauge", "Of these, moves whose link is lost at the moment.", ("host",))
STREAM_RATE = Metric(
    "novacron_stream_bytes_per_second",
    "gauge",
    "What this host's moves take in now, by stream: ram is guest memory, nbd disks, virt libvirt itself.",
    ("host", "stream"),
)
WIRE_RATE = Metric("novacron_wire_bytes_per_second", "gauge", "What this host's moves put on the link now.", ("host",))
LANE_RATE = Metric(
    "novacron_lane_bytes_per_second", "gauge", "The same for one lane, on average over this host's lanes.", ("host",)
)
LANES = Metric("novacron_lanes_alive", "gauge", "Lanes alive in this host's moves.", ("host",))
CERTIFICATE_EXPIRES = Metric(
    "novacron_certificate_expires_timestamp_seconds",
    "gauge",
    "When this host's data path certificate expires (seconds since 1970); 0: a peer would refuse it now. Told at the "
    "worker's start and whenever the host is asked about itself.",
    ("host",),
)

ALL: tuple[Metric, ...] = (
    MOVES, RAW, WIRE, RATIO, DOWNTIME, DURATION, REDIALS, SLOT_WAIT, TWO_COPIES, DECISIONS, DEAD_LETTERS, POSTS,
    LEASE_CALLS, LOOKS, CACHE_LOOKS, CACHE_SENT, CACHE_SAVED,
    RUNNING, STALLED, LATE, LINK_LOST, STREAM_RATE, WIRE_RATE, LANE_RATE, LANES,
    CERTIFICATE_EXPIRES,
)  # fmt: skip


def buckets() -> dict[str, list[float]]:
    """Of all histograms, by name."""
    return {metric.name: list(metric.buckets) for metric in ALL if metric.kind == "histogram"}
