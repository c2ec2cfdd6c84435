"""Does pre-copy still gain ground? Pure; fed with how much each pass over the memory starts with.

A pass starts with the memory that was dirtied during the one before. The move stalls when a pass starts with no less
than the best one that is more than a window old: what it has done since then brought nothing. The window slides, so a
move that gains slowly is left alone. The rule is that of KubeVirt's VEP 248 (pkg/virt-launcher/virtwrap/
stall-detector.go), with two differences: ground that is gained again ends a stall, and a short deadline has a short
window.

While it stalls, the cheapest moment for whatever ends it is a pass that starts with about the best seen: a local
minimum. Should none come, the best is forgotten for the next best, each time after half as long a wait.
"""

from __future__ import annotations

import bisect
from collections import deque

WINDOW = 40.0
"""Seconds a move may go on without ground gained."""
WINDOW_SHARE = 1 / 6
"""Of the whole time, when that is less."""
MARGIN = 0.02
"""Less than this is no gain; so near to the best is as good as the best."""
GAIN = 0.1
"""A pass that starts with a tenth less than the best ends a stall: something has changed for good."""
MOST_PASSES = 4096
"""Remembered during a stall; a move that stalls for longer has long lost its patience."""


class StallDetector:
    def __init__(self, within: float) -> None:
        """`within`: seconds the whole move may take."""
        self.window = min(WINDOW, within * WINDOW_SHARE)
        self.stalled = False
        self._young: deque[tuple[float, int]] = deque()
        """Passes inside the window that may become the best outside: each starts with less than the one before."""
        self._outside: int | None = None
        """The least that a pass outside the window started with."""
        self._best = 0
        self._stall: list[int] = []
        """What the passes of this stall started with, sorted."""
        self._patience = 0.0
        self._relax_at = 0.0

    @property
    def best(self) -> int:
        """The least that a pass started with, as far as it still counts; 0 before the first."""
        if self.stalled:
            return self._best
        return self._young[-1][1] if self._young else self._outside or 0

    def take(self, at: float, remaining: int) -> bool:
        """A pass starts with `remaining` bytes, `at` seconds of time that is judged. Whether the move stalls."""
        while self._young and at - self._young[0][0] >= self.window:
            self._outside = min(self._young.popleft()[1], self._outside or 2**63)
        if self.stalled:
            self._relax(at, remaining)
        elif self._outside is not None and remaining >= self._outside * (1 - MARGIN):
            self.stalled = True
            self._best = min([self._outside, *(left for _, left in self._young)])
            self._stall, self._patience = [], self.window
            self._relax_at = at + self._patience
        if not self._young or remaining < self._young[-1][1]:
            self._young.append((at, remaining))
        return self.stalled

    def at_minimum(self, remaining: int) -> bool:
        """`remaining` is about as little as there will be."""
        return remaining <= self._best * (1 + MARGIN)

    def _relax(self, at: float, remaining: int) -> None:
        if remaining < self._best * (1 - GAIN):
            self.stalled, self._outside = False, None
            self._young.clear()
            return
        if len(self._stall) < MOST_PASSES:
            bisect.insort(self._stall, remaining)
        if at >= self._relax_at:
            self._best = self._stall.pop(0)
            self._patience /= 2
            self._relax_at = at + self._patience
