"""How a blocking activity stays in touch with Temporal: it beats while it waits, and asks why it should stop.

Activities here are plain functions in threads with `no_thread_cancel_exception`: nothing is raised into the middle of
a libvirt call; a cancel is noticed between two looks. It arrives with the answer to a heartbeat, so they beat often.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal, TypeVar

from temporalio import activity
from temporalio.exceptions import ApplicationError, CancelledError

from activities import errors
from models import failures

T = TypeVar("T")

Stop = Literal["cancel", "detach"]


def why_stop() -> Stop | None:
    """`cancel`: someone wants this undone. `detach`: leave everything as it is, a later attempt goes on.

    Only a cancel that was asked for is a cancel. A worker that stops, an attempt that was given up for dead while
    it was alive, a paused or reset activity, a terminated workflow: none of these says that the VM shall not move.
    """
    if activity.is_cancelled():
        details = activity.cancellation_details()
        return "cancel" if details is None or details.cancel_requested else "detach"
    return "detach" if activity.is_worker_shutdown() else None


def detached(what: str) -> ApplicationError:
    return errors.retryable(
        failures.HOST_UNAVAILABLE, f"{what} goes on without this attempt, which was stopped; the next one attaches"
    )


def beat(what: str) -> None:
    """One heartbeat. Raises when the step is to end."""
    activity.heartbeat()
    match why_stop():
        case "cancel":
            raise CancelledError(f"{what} was cancelled")
        case "detach":
            raise detached(what)


def wait(what: str, look: Callable[[], T | None], within: float, late: Callable[[], Exception]) -> T:
    """Beat and look ten times a second until `look` answers; `late()` is raised after `within` seconds."""
    deadline = time.monotonic() + within
    while (found := look()) is None:
        beat(what)
        if time.monotonic() > deadline:
            raise late()
        time.sleep(0.1)
    return found
