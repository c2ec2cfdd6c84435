"""Errors of a workflow, as data a face can act on: a type, and a message that says what happened and what to do.

The types are those activities raise too. All are final here: by the time a workflow fails, its retries are over.
"""

from __future__ import annotations

import asyncio

from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    ApplicationErrorCategory,
    FailureError,
    TimeoutError,
    TimeoutType,
    is_cancelled_exception,
)

from models import failures

FINAL = (failures.INVALID_INPUT, failures.NOT_FOUND, failures.REFUSED, failures.MIGRATION_FAILED, failures.AMBIGUOUS)
"""Types that no retry can mend."""


def final(kind: str, message: str) -> ApplicationError:
    """An error that ends the workflow; an orderly cancel is marked benign, so that no alarm rings for it."""
    benign = ApplicationErrorCategory.BENIGN if kind == failures.CANCELLED else ApplicationErrorCategory.UNSPECIFIED
    return ApplicationError(message, type=kind, non_retryable=True, category=benign)


def handled(error: BaseException) -> bool:
    """True for failures and cancellation. Anything else is a bug of ours or an eviction: never compensate for those."""
    return isinstance(error, (asyncio.CancelledError, FailureError))


def cancelled(error: BaseException | None) -> bool:
    return isinstance(error, asyncio.CancelledError) or (error is not None and is_cancelled_exception(error))


def explain(error: BaseException) -> tuple[str, str]:
    """(type, message) of a failed step: the host's own words where it answered, else that it did not answer."""
    cause = error.cause if isinstance(error, ActivityError) and error.cause else error
    if isinstance(cause, ApplicationError):
        return cause.type or failures.MIGRATION_FAILED, cause.message
    if isinstance(cause, TimeoutError):
        return failures.HOST_UNAVAILABLE, f"{_step(error)}: {_silence(cause.type)}"
    if cancelled(cause):
        return failures.CANCELLED, f"{_step(error)}: cancelled"
    return failures.MIGRATION_FAILED, f"{_step(error)}: {cause}"


def _step(error: BaseException) -> str:
    return error.activity_type.removeprefix("novacron.") if isinstance(error, ActivityError) else "a step"


def _silence(kind: TimeoutType | None) -> str:
    if kind in (TimeoutType.SCHEDULE_TO_START, TimeoutType.SCHEDULE_TO_CLOSE):
        return "the host's worker did not answer within the deadline. Is it running and connected to Temporal?"
    if kind == TimeoutType.HEARTBEAT:
        return "the host's worker fell silent in the middle of the step. Look at its log and restart it"
    return "the step took longer than its deadline. Look at the host worker's log"
