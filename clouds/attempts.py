"""Calls made again, and long operations waited for: one rule for the SDKs whose own differ from call to call."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from clouds.errors import Throttled, Unavailable
from models.clouds import CallSettings

T = TypeVar("T")
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 32.0
"""Seconds between two tries: doubled each time, with jitter. A provider's Retry-After wins when it is longer."""


def attempt(
    what: str,
    act: Callable[[], T],
    calls: CallSettings,
    translate: Callable[[Exception, str], Exception],
    retry_after: Callable[[Exception], float],
) -> T:
    """`act()`, again after throttling and where nobody knows how it went: it has to be one that may be repeated.

    Raises what `translate` makes of its error. `retry_after` says how many seconds the provider asks for, or 0.
    """
    for tried in range(1, calls.attempts + 1):
        try:
            return act()
        except Exception as error:
            told = translate(error, what)
            if isinstance(told, Throttled | Unavailable) and tried < calls.attempts:
                pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (tried - 1)) * random.uniform(0.5, 1)
                time.sleep(max(pause, min(retry_after(error), calls.read_timeout)))
                continue
            if told is error:
                raise
            raise told from error
    raise AssertionError("attempts is at least 1")


def wait(who: str, what: str, ready: Callable[[], bool], calls: CallSettings, beat: Callable[[], None]) -> None:
    """Until `ready()`; `beat()` before each pause. Raises Unavailable after calls.finish_within."""
    until = time.monotonic() + calls.finish_within
    while not ready():
        if time.monotonic() > until:
            raise Unavailable(
                f"{who} did not {what} within {calls.finish_within:.0f} s",
                f"It is looked at again; see its state in {who}'s console.",
            )
        beat()
        time.sleep(calls.poll)
