"""Where does the move stand, and what is to be done? One pure function over what can be seen on the source's host.

A step that may be retried at any moment, by a process that remembers nothing, asks this instead of remembering:
libvirt's view of the VM, the marker written just before libvirt was called, the data path's state, and the fate
of the call if this very process made it.

| answer | meaning | what the caller does |
| --- | --- | --- |
| start | nothing moves yet and nothing is in the way | write the marker, call libvirt |
| watch | the move is under way, in whoever's name | look again in a second |
| moved | the VM has left this host; the destination must still confirm | report |
| stayed | the move is over and the VM is alive here | report the failure |
| refused | must not be started; nothing was changed | report |
| broken off | post-copy broke off: each host holds a part of the memory | report; destroy nothing, go on with it |
| gone | the VM ended here, and not by this move as far as can be told | report |
| in doubt | only a look at both hosts can tell | report; destroy nothing, resume nothing |

No answer destroys or resumes anything; that needs the answers of both hosts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from models.datapath import PathState
from models.host import VmState

Action = Literal["start", "watch", "moved", "stayed", "refused", "broken off", "gone", "in doubt"]
Job = Literal["none", "migration", "other"]
Call = Literal["none", "waiting", "succeeded", "failed"]

# libvirt's reason codes beside a state.
PAUSED_FOR_MIGRATION, PAUSED_POSTCOPY, PAUSED_POSTCOPY_FAILED = 2, 12, 13
OFF_MIGRATED = 4


def in_post_copy(state: VmState | None, reason: int) -> bool:
    """The VM runs at the destination already; what is here is the rest of its memory."""
    return state == "paused" and reason in (PAUSED_POSTCOPY, PAUSED_POSTCOPY_FAILED)


@dataclass(frozen=True)
class Situation:
    """Everything the decision looks at."""

    state: VmState | None
    """None: libvirt answered that it has no such VM."""
    reason: int = 0
    job: Job = "none"
    started: bool = False
    """The marker is there: this move may have been handed to libvirt, by this or an earlier attempt."""
    call: Call = "none"
    """libvirt's migrate call, if this process made it."""
    completed: bool = False
    """libvirt said (event) that the migration job completed."""
    path: PathState | None = "connected"
    """The data path; None when its process is gone."""
    carried: bool | None = None
    """The data path has carried bytes; None when it cannot be asked."""
    resume: bool = False
    """This move goes on with a post-copy that broke off, over a new data path."""


@dataclass(frozen=True)
class Decision:
    action: Action
    reason: str


def decide(now: Situation) -> Decision:
    if now.state is None:
        return _absent(now)
    if now.state in ("shutoff", "crashed"):
        return _off(now)
    if now.state == "paused" and now.reason == PAUSED_POSTCOPY_FAILED:
        return _broken_off(now)
    if now.job == "migration":
        if now.started or (now.resume and now.reason == PAUSED_POSTCOPY):
            return Decision("watch", "libvirt's migration job is running")
        return Decision("refused", "libvirt already runs a migration of this VM that this move did not start")
    return _alive(now)


def _broken_off(now: Situation) -> Decision:
    """libvirt keeps the job of a broken post-copy open, for a second call to go on with it."""
    if now.resume and now.call == "waiting":
        return Decision("watch", "libvirt has the call that goes on with post-copy")
    if now.resume and not now.started and now.call == "none" and now.path in ("connected", "link-lost"):
        return Decision("start", "post-copy broke off, and a new data path is there to go on over")
    return Decision("broken off", "post-copy broke off: the destination runs the VM and waits for memory that is here")


def _absent(now: Situation) -> Decision:
    if not now.started and not now.resume:
        return Decision("gone", "libvirt has no such VM, and this move never started")
    if now.completed or now.call == "succeeded":
        return Decision("moved", "libvirt completed the migration and the VM is no longer here")
    if now.call == "waiting":
        return Decision("watch", "the VM has left libvirt's list; its call has yet to say how")
    if now.call == "failed":
        return Decision("gone", "the VM is no longer here, and libvirt's call failed")
    if now.carried is False:
        return Decision("gone", "the VM is no longer here, and the data path never carried a byte of it")
    return Decision("moved", "the VM is no longer here, and this move had started; nobody saw it leave")


def _off(now: Situation) -> Decision:
    if not now.started:
        return Decision("refused", f"the VM is {now.state}: only a running VM moves live")
    if now.state == "shutoff" and now.reason == OFF_MIGRATED:
        return Decision("moved", "libvirt says that the VM migrated away")
    if now.call == "waiting":
        return Decision("watch", "the VM stopped here; libvirt's call has yet to say why")
    return Decision("gone", f"the VM is {now.state} here: it ended during the move")


def _alive(now: Situation) -> Decision:
    """The VM lives here and no migration job can be seen."""
    if now.call == "waiting":
        return Decision("watch", "libvirt has the call; its job is about to begin or has just ended")
    if in_post_copy(now.state, now.reason):
        return Decision("in doubt", "the VM is paused here in post-copy, and libvirt has no job for it")
    if now.job == "other":
        return Decision("stayed" if now.started else "refused", "another libvirt job holds the VM")
    if now.call == "failed":
        return Decision("stayed", "libvirt ended the migration")
    if now.call == "succeeded":
        return Decision("in doubt", "libvirt reported success, yet the VM is still here")
    if now.state == "paused" and now.reason == PAUSED_FOR_MIGRATION:
        return Decision("in doubt", "the VM is paused here by a migration that nobody finishes")
    if now.resume:
        return Decision("stayed", "the VM is not in post-copy here: there is nothing to go on with")
    if now.state == "unknown":
        return Decision("in doubt", "libvirt reports a state of the VM that has no meaning here")
    if now.path not in ("connected", "link-lost"):
        return Decision("stayed", f"the data path is {now.path or 'gone'}: nothing can be carried")
    if now.started:
        return Decision("start", "an earlier attempt ended without libvirt's job; the VM is still here")
    return Decision("start", "the VM is here and nothing moves it yet")
