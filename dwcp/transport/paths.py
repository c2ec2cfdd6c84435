"""Which of the destination's addresses each lane is dialled at. Pure: told what happened, asked what to do.

Lanes spread evenly over the paths that live. A path on which a dial failed or a lane was lost takes no lanes while
another lives, and is tried again after FIRST_RETRY, doubling up to LAST_RETRY, when a lane could move to it. With no
path left every one is tried in turn. The return lane takes the first path that lives.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from dwcp.transport.hello import RETURN_LANE

FIRST_RETRY: Final = 1.0
LAST_RETRY: Final = 60.0


@dataclass(slots=True)
class _Path:
    lanes: set[int] = field(default_factory=set)
    """Dialled here, or being dialled."""
    failed: bool = False
    retry: float = 0.0
    """Seconds between the last failure and the next try."""
    retry_at: float = 0.0
    tried_at: float = float("-inf")

    @property
    def forward(self) -> int:
        return len(self.lanes - {RETURN_LANE})


class Paths:
    def __init__(self, count: int) -> None:
        self._paths = [_Path() for _ in range(count)]

    def choose(self, lane: int, now: float) -> int:
        """Where to dial `lane`, which counts as there from now on until `lost` or `left`."""
        living = [n for n, path in enumerate(self._paths) if not path.failed]
        if not living:
            chosen = min(range(len(self._paths)), key=lambda n: (self._paths[n].tried_at, n))
        elif lane == RETURN_LANE:
            chosen = living[0]
        else:
            chosen = min(living, key=lambda n: (self._paths[n].forward, n))
        self._take(lane, chosen, now)
        return chosen

    def opened(self, lane: int, path: int) -> None:
        """A dial succeeded."""
        del lane
        self._paths[path].failed, self._paths[path].retry = False, 0.0

    def lost(self, lane: int, path: int, now: float) -> None:
        """A dial failed, or an open lane was lost."""
        here = self._paths[path]
        here.lanes.discard(lane)
        here.failed = True
        here.retry = min(LAST_RETRY, max(FIRST_RETRY, here.retry * 2))
        here.retry_at = now + here.retry

    def left(self, lane: int, path: int) -> None:
        """The lane went on purpose."""
        self._paths[path].lanes.discard(lane)

    def living(self) -> bool:
        """Whether some path is not known to have failed."""
        return not all(path.failed for path in self._paths)

    def due(self, now: float) -> int | None:
        """A path to try now, because a lane had better move to it: it failed once, or lanes elsewhere have left."""
        for number, path in enumerate(self._paths):
            if now >= path.retry_at and self.mover(number) is not None:
                path.retry_at = now + LAST_RETRY  # until the answer is here
                return number
        return None

    def mover(self, path: int) -> int | None:
        """The lane that had better move to `path`."""
        most = max((other for other in self._paths if not other.failed), key=lambda p: p.forward, default=None)
        if most is None or most.forward < self._paths[path].forward + 2:
            return None
        return max(most.lanes - {RETURN_LANE})

    def move(self, lane: int, path: int, now: float) -> None:
        """`lane` is dialled at `path` next, which has answered."""
        self._paths[path].failed = False
        self._paths[path].retry_at = now + FIRST_RETRY  # one at a time
        self._take(lane, path, now)

    def _take(self, lane: int, path: int, now: float) -> None:
        for other in self._paths:
            other.lanes.discard(lane)
        self._paths[path].lanes.add(lane)
        self._paths[path].tried_at = now
