"""When is a lane dead? Pure.

Each lane is written by one side only. The reader's case is simple: a PING comes every PING_EVERY, so silence for
LANE_TIMEOUT means death (its socket timeout does it). The writer sees nothing on the lane itself: its PINGs are echoed
on the lanes of the other direction, so it can only judge while those are heard. A link that has become very slow is not
a dead one: as long as the kernel still gets bytes acknowledged, the writer waits ten times longer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

PING_EVERY: Final = 0.5
LANE_TIMEOUT: Final = 4.0
HEARING: Final = 3 * PING_EVERY
"""Echoes are missed only while the other direction is heard: else it may be that one that is lost."""
PATIENCE: Final = 10
"""How many times LANE_TIMEOUT a crawling lane is given."""


@dataclass(slots=True)
class WriterLiveness:
    """What the writer of one lane knows. Times are of one monotonic clock."""

    echoed: float
    """When the newest echo came, at first when the lane was opened."""
    acked_bytes: int = 0
    progressed: float = 0.0

    def observe(self, now: float, acked_bytes: int) -> None:
        """`acked_bytes`: what the kernel has had acknowledged on this connection so far."""
        if acked_bytes > self.acked_bytes:
            self.acked_bytes, self.progressed = acked_bytes, now

    def verdict(self, now: float, hearing_since: float | None, heard: float, queued: int) -> str | None:
        """The reason to close the lane, or None. `hearing_since`: since when the other direction has had a lane;
        `heard`: when the newest frame came on one; `queued`: bytes the kernel still holds for this lane."""
        if hearing_since is None or now - heard > HEARING:
            return None
        silent = now - max(self.echoed, hearing_since)
        if silent < LANE_TIMEOUT:
            return None
        if queued and now - self.progressed < LANE_TIMEOUT and silent < LANE_TIMEOUT * PATIENCE:
            return None
        return f"no echo for {silent:.1f} s"
