"""Another round of changes, or cut over? Pure: what the rounds took in, what to do and why out.

While a round is sent the guest goes on writing, at the rate at which it did: what the next round will have to send, and
how long that takes, follows. The last one comes on top of stopping the guest, comparing its disks with the ledger, and
starting the instance, for which there are only rough figures before it has been done once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from models.cloud_move import CutOverRequest
from workflows import details

START_SECONDS = 45.0
"""To stop the guest, make an image and run it: a guess, until somebody measures it in a real account."""
STOP_SECONDS = 75.0
"""To stop an instance, and to start the VM on a host: a guess likewise."""
PASS_SECONDS = 90.0
"""To stop an instance, and to make an image in another cloud and run it: a guess likewise."""
COMPARE_RATE = 200 << 20
"""Bytes a second at which a disk that is off is compared with its ledger; slow disks make slower."""
GAIN = 0.9
"""A round that leaves more than this part of what the one before left gains nothing."""
SHORTEST = 0.001
"""Seconds between two moments below which no rate of writing can be told."""
PATIENCE = 3
"""So many rounds without a gain show that more are of no use."""


@dataclass(frozen=True)
class Round:
    bytes: int
    """Sent."""
    seconds: float
    """From the moment it shows to the end of sending it."""
    since: float
    """Seconds between the moment before and its own; 0 of the first, which sends everything."""


@dataclass(frozen=True)
class Next:
    action: Literal["round", "cut over"]
    reason: str
    expected: float
    """Seconds of downtime if it were cut over now."""
    within: bool
    """That is within the goal."""


def expected(rounds: Sequence[Round], held: int, fixed: float = START_SECONDS) -> float:
    """Downtime in seconds, cut over right after these rounds; `held`: bytes of the images, `fixed`: seconds that have
    nothing to do with either."""
    return fixed + held / COMPARE_RATE + (_last(rounds) if rounds else 0.0)


def decide(rounds: Sequence[Round], goal: float, most: int, held: int, fixed: float = START_SECONDS) -> Next:
    """After at least one round. `goal`: seconds of downtime; `most`: rounds, the first copy not counted."""
    now = expected(rounds, held, fixed)
    told = f"expected downtime {details.duration(now)}, goal {details.duration(goal)}"
    if len(rounds) > 1 and now <= goal:
        return Next("cut over", f"{told}: within reach", now, True)
    if len(rounds) - 1 >= most:
        return Next("cut over", f"{told}: {most} rounds are the most that were allowed", now, now <= goal)
    if _stuck(rounds):
        return Next("cut over", f"{told}: the last {PATIENCE} rounds gained nothing", now, now <= goal)
    return Next("round", f"{told}: another round", now, False)


def when(wanted: CutOverRequest) -> str:
    """The moment of the cut-over, for people."""
    return {
        "now": "when the last round is expected to fit the downtime goal",
        "at": f"at {wanted.cut_over_at.isoformat() if wanted.cut_over_at else ''}",
        "window": "when a window opens",
        "manual": "on the update cut_over_now",
    }[wanted.cut_over]


def _last(rounds: Sequence[Round]) -> float:
    """Seconds to send what the guest writes while the newest round was sent."""
    newest = rounds[-1]
    if newest.since < SHORTEST:
        return newest.seconds
    rate = max((each.bytes / each.seconds for each in rounds if each.bytes and each.seconds > 0), default=0.0)
    if not rate:
        return 0.0
    return newest.bytes / newest.since * newest.seconds / rate


def _stuck(rounds: Sequence[Round]) -> bool:
    changes = [each.bytes for each in rounds[1:]]
    tail = changes[-(PATIENCE + 1) :]
    return len(tail) > PATIENCE and all(b > GAIN * a for a, b in pairwise(tail))
