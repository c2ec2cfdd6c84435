"""What goes wrong on a simulated site, drawn from a seed: the same question has the same answer in every run."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

Fault = Literal["none", "refused", "path", "broken", "leftover"]
"""refused: the destination's admission finds a blocker. path: the data path cannot be opened. broken: the move ends
in the middle, the VM stays. leftover: the same, and a paused copy that never ran is left at the destination."""


@dataclass(frozen=True)
class Faults:
    """Shares of moves (0 to 1) that meet each fault. A VM's next attempt to another host is drawn anew."""

    seed: int = 1
    refused: float = 0.0
    path: float = 0.0
    broken: float = 0.0
    leftover: float = 0.0

    def of(self, vm: str, destination: str) -> Fault:
        """The fate of a move of this VM to this host."""
        drawn = random.Random(f"{self.seed}/{vm}/{destination}").random()
        shares: tuple[tuple[Fault, float], ...] = (
            ("refused", self.refused),
            ("path", self.path),
            ("broken", self.broken),
            ("leftover", self.leftover),
        )
        for fault, share in shares:
            if drawn < share:
                return fault
            drawn -= share
        return "none"

    def seconds(self, vm: str, destination: str, median: float) -> float:
        """How long the memory takes to cross: spread around the median, from a half to four times."""
        drawn = random.Random(f"{self.seed}/{vm}/{destination}/seconds").lognormvariate(0, 0.5)
        return median * min(4.0, max(0.5, drawn))
