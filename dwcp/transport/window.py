"""How much of one flow may be on its way: bounded in time, counted in wire bytes. Pure.

    limit = delivered rate x (seconds + least round trip), between FLOOR and CAP

The rule ramps up by itself: while the link is not full, a byte is acknowledged sooner than `seconds` + round trip after
it was sent, so the measured rate times that span is more than what is out now. It comes to rest exactly where the queue
on the way holds `seconds` of the link. The receiver acknowledges when bytes reach the local socket, so a slow reader
there shrinks the window just as a slow link does.

Invariants: a rate sample spans acknowledgement to acknowledgement (or first send after a pause), so it is not biased by
batch sizes; a sample taken while the program had nothing to send lowers the rate only slowly; one sample changes the
rate by no more than GROWTH, so the burst after a healed link does not open the window wide.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

FLOOR: Final = 128 << 10
CAP: Final = 64 << 20
SAMPLE_SECONDS: Final = 0.05
GROWTH: Final = 4.0
PAUSE: Final = 0.01
"""Nothing out for this long: the program paused, and the pause is no part of a sample."""
UNSURE: Final = 16
"""A lower sample counts this little when the window was not what held the flow back."""
SLACK: Final = 0.005
"""Coalesced acknowledgements and thread hand-offs: time that is neither link nor queue."""


@dataclass(slots=True)
class Window:
    seconds: float
    rate: float = 0.0
    """Delivered wire bytes a second; 0 before the first sample."""
    out: int = 0
    """Wire bytes sent and not acknowledged."""
    _since: float = 0.0
    _acked_at: float = float("-inf")
    _delivered: int = 0
    _blocked: bool = False

    def limit(self, round_trip: float) -> int:
        return int(min(CAP, max(FLOOR, self.rate * (self.seconds + SLACK + round_trip))))

    def has_room(self, round_trip: float) -> bool:
        """Ask before each send; a refusal is remembered as "the program had more to send"."""
        if self.out < self.limit(round_trip):
            return True
        self._blocked = True
        return False

    def sent(self, size: int, now: float) -> None:
        if self.out == 0 and now - self._acked_at > PAUSE:
            self._since, self._delivered, self._blocked = now, 0, False
        self.out += size

    def acked(self, size: int, now: float) -> None:
        self.out -= size
        self._delivered += size
        self._acked_at = now
        span = now - self._since
        if span < SAMPLE_SECONDS:
            return
        sample = self._delivered / span
        if self.rate == 0.0:
            self.rate = sample
        elif sample > self.rate:
            self.rate += (min(sample, self.rate * GROWTH) - self.rate) / 2
        else:
            self.rate += (max(sample, self.rate / GROWTH) - self.rate) / (2 if self._blocked else UNSURE)
        self._since, self._delivered, self._blocked = now, 0, False

    def forget(self, size: int) -> None:
        """Sent bytes that will never be acknowledged (the direction was reset)."""
        self.out -= size
