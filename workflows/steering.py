"""What people may ask of a running move, by its phase; what is refused, and in which words.

| phase | cancel | change the link's bound | switch to post-copy now |
| --- | --- | --- | --- |
| checking, waiting, preparing | yes | noted, holds from the moment the path is open | no |
| moving | yes | yes | yes, unless its mode is pre-copy |
| post-copy | no: the VM runs at the destination | yes | no: it has |
| any later one | no | no | no |

A wait for a window can be cut short (start_now), and nothing else can.
"""

from __future__ import annotations

from models import failures
from models.migration import MoveMode, Phase
from workflows import errors

MOST_MIB = 1_000_000
_OPEN: tuple[Phase, ...] = ("checking", "waiting", "preparing", "moving")


def may_cancel(phase: Phase, to: str) -> None:
    if phase == "post-copy":
        raise errors.final(
            failures.REFUSED,
            f"too late to cancel: the VM runs on {to} already, past the point of no return, and the rest of its memory "
            f"follows. The move can only be finished. Wait for its result",
        )
    if phase not in _OPEN:
        raise errors.final(
            failures.REFUSED,
            f"too late to cancel: the move is {phase}, past its point of no return. Wait for its result",
        )


def may_start_now(phase: Phase) -> None:
    if phase != "waiting":
        raise errors.final(failures.REFUSED, f"the move is {phase}: it does not wait for a window")


def may_limit(phase: Phase, mib: int) -> None:
    if not 0 <= mib <= MOST_MIB:
        raise errors.final(failures.INVALID_INPUT, f"mib: got {mib}. Give MiB a second from 0 (no bound) to {MOST_MIB}")
    if phase not in (*_OPEN, "post-copy"):
        raise errors.final(failures.REFUSED, f"the move is {phase}: nothing crosses the link any more")


def may_switch(phase: Phase, mode: MoveMode) -> None:
    if phase != "moving":
        raise errors.final(
            failures.REFUSED, f"the move is {phase}: post-copy can be started while it is moving, and only once"
        )
    if mode == "pre-copy":
        raise errors.final(
            failures.REFUSED,
            "this move was started with mode pre-copy, and libvirt has to know before it starts. Cancel it, and start "
            "it again with mode hybrid or post-copy",
        )
