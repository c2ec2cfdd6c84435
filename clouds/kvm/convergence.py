"""When does a move switch to post-copy? Pure: samples of libvirt's job in, advice with its reason out.

| mode | advice |
| --- | --- |
| pre-copy | never |
| post-copy | as soon as the first pass is over: every page has been sent once |
| hybrid | when the last passes left no less to send than the ones before, or half of the time is gone |

A pass starts with the memory that was dirtied during the one before. A guest of 4 GiB whose passes start with 4096,
900, 860, 850 and 845 MiB will not get under what fits into its final pause, however long it is waited for.
"""

from __future__ import annotations

from clouds.kvm.progress import JobSample
from models.migration import MoveMode

STALLED_PASSES = 3
"""So many passes in a row without real gain make a stall; the first pass, which sends everything, does not count."""
GAIN = 0.1
"""A pass that starts with a tenth less than the best one before has gained ground."""
PATIENCE = 0.5
"""Share of finish_within that hybrid leaves to pre-copy."""


class Convergence:
    """Of one move. Give it every sample; an attempt that comes later starts its count anew."""

    def __init__(self, mode: MoveMode, finish_within: float) -> None:
        self._mode = mode
        self._patience = finish_within * PATIENCE
        self._pass = 0
        self._best: int | None = None
        self._stalled = 0

    def advice(self, elapsed: float, sample: JobSample) -> str:
        """Why to switch now, or nothing. `elapsed`: seconds since the move began."""
        if self._mode == "pre-copy" or sample.iteration < 1 or not sample.total:
            return ""  # libvirt has not begun to send memory: too early for it
        if self._mode == "post-copy":
            return "the first pass is over" if sample.iteration > 1 else ""
        self._take(sample)
        if self._stalled >= STALLED_PASSES:
            return f"{self._stalled} passes gained no ground: each starts with at least {self._best or 0} bytes"
        if elapsed > self._patience:
            return f"pre-copy had {elapsed:.0f} s, half of the time"
        return ""

    def _take(self, sample: JobSample) -> None:
        if sample.iteration <= max(self._pass, 1):
            return
        self._pass = sample.iteration
        if self._best is None or sample.remaining < self._best * (1 - GAIN):
            self._best, self._stalled = sample.remaining, 0
        else:
            self._stalled += 1
