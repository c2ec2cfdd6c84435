"""The one table of timeouts and retries, by kind of step. No step is without an end.

A host that does not pick up a task within `schedule_to_start` is taken for dead; Temporal does not retry that timeout.
Where the answer must come even through an outage (confirming, closing) there is none, and `schedule_to_close` bounds it
all. Questions may be dropped on a cancel; steps with effects are waited for: no undo runs beside what it undoes.
"""

from __future__ import annotations

from datetime import timedelta

from temporalio.common import RetryPolicy
from temporalio.workflow import ActivityCancellationType, ActivityConfig

from models.migration import MigrationPolicy
from workflows import errors

_DROP = ActivityCancellationType.TRY_CANCEL
_WAIT = ActivityCancellationType.WAIT_CANCELLATION_COMPLETED


def _retry(attempts: int, first: float = 0.5, longest: float = 10) -> RetryPolicy:
    """`attempts` 0 means as often as schedule_to_close allows."""
    return RetryPolicy(
        initial_interval=timedelta(seconds=first),
        maximum_interval=timedelta(seconds=longest),
        maximum_attempts=attempts,
        non_retryable_error_types=list(errors.FINAL),
    )


def _seconds(value: float) -> timedelta:
    return timedelta(seconds=value)


CONTROL = ActivityConfig(
    start_to_close_timeout=_seconds(15),
    schedule_to_close_timeout=_seconds(60),
    retry_policy=_retry(5),
    cancellation_type=_DROP,
)
"""The control worker's own calls: site settings, who polls."""

QUESTION = ActivityConfig(
    schedule_to_start_timeout=_seconds(20),
    start_to_close_timeout=_seconds(30),
    schedule_to_close_timeout=_seconds(90),
    retry_policy=_retry(3),
    cancellation_type=_DROP,
)
"""Reading a host before anything has started."""

MEASURE = ActivityConfig(
    schedule_to_start_timeout=_seconds(20),
    start_to_close_timeout=_seconds(45),
    schedule_to_close_timeout=_seconds(90),
    heartbeat_timeout=_seconds(10),
    retry_policy=_retry(2),
    cancellation_type=_WAIT,
)
"""Some seconds of looking at a guest or filling a link, for a plan."""

PREPARE = ActivityConfig(
    schedule_to_start_timeout=_seconds(30),
    start_to_close_timeout=_seconds(150),
    schedule_to_close_timeout=_seconds(240),
    retry_policy=_retry(3),
    cancellation_type=_WAIT,
)
"""Opening one end of the data path; the source's end also waits for the connection."""

CONFIRM = ActivityConfig(
    start_to_close_timeout=_seconds(30),
    schedule_to_close_timeout=_seconds(15 * 60),
    retry_policy=_retry(0),
    cancellation_type=_WAIT,
)
"""Asking where the VM is, through a restart or a short outage of that host's worker."""

STEER = ActivityConfig(
    schedule_to_start_timeout=_seconds(20),
    start_to_close_timeout=_seconds(20),
    schedule_to_close_timeout=_seconds(45),
    retry_policy=_retry(0, longest=2),
    cancellation_type=_DROP,
)
"""What a person asks of a running move: somebody waits for the answer."""

DISCARD = ActivityConfig(
    start_to_close_timeout=_seconds(60),
    schedule_to_close_timeout=_seconds(5 * 60),
    retry_policy=_retry(5),
    cancellation_type=_WAIT,
)
"""Removing the paused leftover of a failed move."""

CLOSE = ActivityConfig(
    start_to_close_timeout=_seconds(60),
    schedule_to_close_timeout=_seconds(3 * 60),
    retry_policy=_retry(0),
    cancellation_type=_WAIT,
)
"""Stopping one end of the data path. What cannot be reached ends by its own lifetime."""

LEASE = ActivityConfig(
    start_to_close_timeout=_seconds(20),
    schedule_to_close_timeout=_seconds(60),
    retry_policy=_retry(5),
    cancellation_type=_WAIT,
)
"""The owner records, where nothing goes on without their answer. Waited for: a lease that was taken must be known."""

LEASE_MOVED = ActivityConfig(
    start_to_close_timeout=_seconds(20),
    schedule_to_close_timeout=_seconds(10 * 60),
    retry_policy=_retry(0, first=1, longest=45),
    cancellation_type=_WAIT,
)
"""The record of a VM that has moved: worth some patience. What it does not reach, the reconciler sets right."""

RENEW_EVERY = 600.0
"""Seconds between renewals of a lease, a third of what it holds for."""

COURIER = ActivityConfig(
    start_to_close_timeout=_seconds(30),
    schedule_to_close_timeout=_seconds(24 * 3600),
    retry_policy=_retry(0, longest=60),
    cancellation_type=_DROP,
)
"""What the delivery of events needs to know. Nobody waits for it."""

LOOK_AGAIN: tuple[float, ...] = (1, 8, 45)
"""Pauses in seconds between looks while the two answers do not fit together yet."""

RESUME_AFTER: tuple[float, ...] = (1, 5, 15, 30, 60, 120, 300, 600, 900, 900)
"""Pauses in seconds before each attempt to go on with a post-copy that broke off: a good three quarters of an hour, in
which the VM stands still wherever it misses memory. Its two halves keep as long as both hosts run."""

HALVES_LOOK: tuple[float, ...] = (1, 3, 10)
"""Pauses between looks until both hosts know that post-copy broke off."""

HOSTS_AT_ONCE = 50
"""Questions to all hosts of a site go out in groups of this size. Each answer changes the workflow that asked, one
after the other: of larger groups the server turns some away (BusyWorkflow), and they are told again later."""


def longest(policy: MigrationPolicy) -> float:
    """The most seconds a move that started with this policy can be given while it runs."""
    return max(2 * policy.finish_within, policy.finish_within + 3600)


def move(policy: MigrationPolicy) -> ActivityConfig:
    """The move itself gives up after `finish_within`, which people may lengthen while it runs; these bounds only catch
    a worker that does not.

    Post-copy has no deadline of its own: when these run out the workflow attaches to it again. The attempts cover
    workers that die and come back; each attaches to the job its predecessor left.
    """
    whole = longest(policy) + policy.resume_within + 300
    return ActivityConfig(
        schedule_to_start_timeout=_seconds(300),
        start_to_close_timeout=_seconds(whole),
        schedule_to_close_timeout=_seconds(whole + 600),
        heartbeat_timeout=_seconds(10),
        retry_policy=_retry(20, longest=5),
        cancellation_type=_WAIT,
    )


def delivery(within: timedelta) -> ActivityConfig:
    """One event to one webhook: from a second to five minutes between attempts, until it is taken or given up."""
    return ActivityConfig(
        start_to_close_timeout=_seconds(45),
        schedule_to_close_timeout=within,
        retry_policy=_retry(0, first=1, longest=300),
        cancellation_type=_DROP,
    )
