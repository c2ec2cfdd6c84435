"""What people may ask of a running move, by its phase; what is refused, and in which words.

| phase | cancel | set_bandwidth | set_policy | pause | resume | post_copy_now |
| --- | --- | --- | --- | --- | --- | --- |
| checking, waiting, preparing | yes | noted | noted | no: nothing crosses yet | no: not paused | no: not yet |
| moving | yes | yes | yes | yes, unless it is | if it is paused | if it may switch, and is not paused |
| post-copy | no: it runs there | yes | the link's bound only | no: it would wait for its memory | no | no: it has |
| any later one | no | no | no | no | no | no |

*noted*: it holds from the moment the data path is open, or the move step starts.

A wait for a window can be cut short (start_now), and nothing else can: a wait for a slot ends with one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pydantic import ValidationError
from temporalio.exceptions import ApplicationError

from models import failures
from models.migration import MigrationPolicy, Phase, may_switch
from workflows import errors, request
from workflows.calls import deadlines

MOST_MIB = 1_000_000
LONGEST_PAUSE = 86400.0
"""Seconds. The deadline of the move does not wait for a pause, and mostly ends it sooner."""
CHANGEABLE = (
    "finish_within", "finish_by", "max_downtime_ms", "max_slowdown", "allow_post_copy", "allow_pause", "bandwidth_mib",
    "wire_mib",
)  # fmt: skip
"""Fields of the policy that can be changed while the move runs."""
_OPEN: tuple[Phase, ...] = ("checking", "waiting", "preparing", "moving")


@dataclass(frozen=True)
class Standing:
    """All that the answers depend on."""

    phase: Phase
    to: str
    """Where the VM moves."""
    policy: MigrationPolicy
    """As it stands now."""
    begun: MigrationPolicy | None = None
    """As the move step was started with; None: it was not yet."""
    held: bool = False
    """People paused the move."""
    now: datetime | None = None
    moving_for: float = 0.0
    """Seconds since the move step began."""


def may_cancel(at: Standing) -> None:
    if at.phase == "post-copy":
        raise _refused(
            f"too late to cancel: the VM runs on {at.to} already, past the point of no return, and the rest of its "
            f"memory follows. The move can only be finished. Wait for its result"
        )
    if at.phase not in _OPEN:
        raise _refused(
            f"too late to cancel: the move is {at.phase}, past its point of no return. It is being finished. Wait for "
            f"its result"
        )


def may_start_now(at: Standing, for_a_slot: bool = False) -> None:
    if at.phase != "waiting":
        raise _refused(f"the move is {at.phase}: it does not wait for a window")
    if for_a_slot:
        raise _refused(
            "the move does not wait for a window but for a slot, which other moves of the site have. `novacron slots` "
            "shows them; cancel one, or raise the limit in the site's settings"
        )


def may_limit(at: Standing, mib: int) -> None:
    if not 0 <= mib <= MOST_MIB:
        raise errors.final(failures.INVALID_INPUT, f"mib: got {mib}. Give MiB a second from 0 (no bound) to {MOST_MIB}")
    _crosses(at)


def may_switch_now(at: Standing) -> None:
    if at.phase != "moving":
        raise _refused(f"the move is {at.phase}: post-copy can be started while it is moving, and only once")
    if not may_switch(at.policy):
        raise _refused(
            "this move was started with mode pre-copy, and libvirt has to know before it starts. Cancel it, and start "
            "it again with allow_post_copy, or mode hybrid or post-copy"
        )
    if at.held:
        raise _refused("the move is paused, so nothing crosses the link. Resume it first")


def may_pause(at: Standing, seconds: float) -> None:
    if not 0 < seconds <= LONGEST_PAUSE:
        raise errors.final(
            failures.INVALID_INPUT, f"seconds: got {seconds:g}. Give how long at most, up to {LONGEST_PAUSE:g}"
        )
    if at.phase == "post-copy":
        raise _refused(
            f"the move is in post-copy: the VM runs on {at.to} and would stand still wherever it misses memory. Bound "
            f"the link with set_bandwidth instead"
        )
    _moves(at, "paused")
    if at.held:
        raise _refused("the move is paused already. Resume it, then pause it anew for another time")


def may_resume(at: Standing) -> None:
    _moves(at, "resumed")
    if not at.held:
        raise _refused("the move is not paused: it goes on")


def changed(at: Standing, changes: object) -> MigrationPolicy:
    """The policy with these changes. Refuses what cannot be changed, or not any more, with the reason."""
    if not isinstance(changes, dict) or not changes:
        raise errors.final(
            failures.INVALID_INPUT, f'changes: got {changes!r}. Give one JSON object, such as {{"finish_within": 900}}'
        )
    for field in changes:
        if field not in CHANGEABLE:
            known = field in MigrationPolicy.model_fields
            why = "cannot be changed while the move runs" if known else "is no field of a policy"
            raise errors.final(failures.INVALID_INPUT, f"{field}: {why}. These can: {', '.join(CHANGEABLE)}")
    _crosses(at)
    try:
        policy = MigrationPolicy.model_validate(at.policy.model_dump() | changes)
        policy = policy.model_copy(update=_implied(at, changes, policy))
    except ValidationError as error:
        raise errors.final(failures.INVALID_INPUT, request.complaints(error)) from None
    if at.phase == "post-copy" and (useless := sorted(set(changes) - {"wire_mib"})):
        raise _refused(
            f"{useless[0]}: the VM runs on {at.to} already, nothing of this matters any more. Only wire_mib still does"
        )
    if may_switch(policy) and not may_switch(at.policy if at.begun is None else at.begun):
        raise _refused(
            "allow_post_copy: libvirt and the checks before the move have to know of it. Cancel the move, and start it "
            "again with it"
        )
    if at.begun is not None:
        _still_possible(at, at.begun, policy)
    return policy


def _implied(at: Standing, changes: dict[str, object], policy: MigrationPolicy) -> dict[str, object]:
    """A move is told its mode and one span (models/goals.py): both follow the goals they were made from."""
    implied: dict[str, object] = {}
    if "allow_post_copy" in changes and policy.mode != "post-copy":
        implied["mode"] = "hybrid" if policy.allow_post_copy else "pre-copy"
    later = policy.finish_by if "finish_by" in changes and "finish_within" not in changes else None
    if later is not None and at.begun is not None and at.now is not None:
        implied["finish_within"] = at.moving_for + (later - at.now).total_seconds()
    return implied


def _still_possible(at: Standing, begun: MigrationPolicy, policy: MigrationPolicy) -> None:
    if policy.max_slowdown and not begun.max_slowdown:
        raise _refused(
            "max_slowdown: this move was started with 0, and libvirt has to know of throttling before it starts. "
            "Cancel it, and start it again"
        )
    if policy.finish_by is not None and at.now is not None and policy.finish_by <= at.now:
        raise _refused(
            f"finish_by: {policy.finish_by.isoformat()} is past, it is {at.now.isoformat()}. Give a later time, or "
            f"cancel"
        )
    if policy.finish_within > (longest := deadlines.longest(begun)):
        raise _refused(
            f"finish_within: got {policy.finish_within:g}. This run can be given {longest:g} s at most, twice what it "
            f"started with"
        )
    if policy.finish_within <= at.moving_for:
        raise _refused(
            f"finish_within: got {policy.finish_within:g}, and it has been moving for {at.moving_for:.0f} s. Give "
            f"more, or cancel the move"
        )


def _crosses(at: Standing) -> None:
    if at.phase not in (*_OPEN, "post-copy"):
        raise _refused(f"the move is {at.phase}: nothing crosses the link any more")


def _moves(at: Standing, what: str) -> None:
    if at.phase in ("checking", "waiting", "preparing"):
        raise _refused(f"the move is {at.phase}: nothing crosses the link yet that could be {what}")
    if at.phase == "post-copy":
        raise _refused(f"the move is in post-copy: it cannot be paused, so it cannot be {what}")
    _crosses(at)


def _refused(message: str) -> ApplicationError:
    return errors.final(failures.REFUSED, message)
