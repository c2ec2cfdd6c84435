"""A bound on bytes a second over all lanes of a session. Pure: one monotonic clock, passed in.

A frame is charged whole when it is taken, however large; the next one goes when the debt is paid. So the rate holds
over any span longer than a frame, and a lane never stops inside one. What nobody used is saved for BURST_SECONDS only.
Frames that cannot wait (acknowledgements, pings, programs' small talk) are charged and not asked for: bulk pays for
them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

BURST_SECONDS: Final = 0.02


@dataclass(slots=True)
class Pacer:
    limit: int = 0
    """Bytes a second; 0 is no bound."""
    _paid_at: float = 0.0
    """When everything charged so far is paid."""

    def change(self, limit: int, now: float) -> None:
        """A new bound from now on; debt of the old one is kept in bytes."""
        debt = self.wait(now) * self.limit
        self.limit = limit
        self._paid_at = now + (debt / limit if limit else 0.0)

    def wait(self, now: float) -> float:
        """Seconds until bulk may go; 0: now."""
        return max(0.0, self._paid_at - now) if self.limit else 0.0

    def charge(self, size: int, now: float) -> None:
        """`size` bytes go out, or fewer than charged before if it is negative."""
        if self.limit:
            self._paid_at = max(self._paid_at, now - BURST_SECONDS) + size / self.limit
