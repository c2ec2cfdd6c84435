"""The updates, queries and signals of a move: what people and the move step tell it while it runs.

Every update is answered, or refused by its validator in the words of move/steering.py, in every phase. What the
host has to do is waited for; the run does not end before each update has its answer.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

from models import events, failures
from models.decisions import Decision, GoalReport, Story
from models.migration import MigrateRequest, MigrationPolicy, Progress, VmRef
from workflows import errors
from workflows.calls.site import Host
from workflows.move import steering
from workflows.move.chronicle import Chronicle, elapsed
from workflows.move.crossing import Crossing
from workflows.site import verdict


class Steered:
    """Base of MigrateVm, which sets these."""

    _request: MigrateRequest
    _source: Host
    _ref: VmRef

    def __init__(self) -> None:
        self._chronicle = Chronicle()
        self._task: asyncio.Task[Any] | None = None
        self._stop: str | None = None
        """Reason given with the update `cancel`."""
        self._crossing: Crossing | None = None
        self._changes: dict[str, Any] = {}
        """Fields of the policy that were changed, and their values."""
        self._held_until = 0.0
        """Unix time until which people paused the move."""
        self._goals: tuple[GoalReport, ...] = ()
        """Once it has ended."""

    def _policy(self) -> MigrationPolicy:
        """As asked for, and filled in by the policy of its name, with what was changed since."""
        return self._request.policy.model_copy(update=self._changes)

    def _standing(self) -> steering.Standing:
        now = workflow.now()
        return steering.Standing(
            phase=self._chronicle.progress.phase,
            to=self._request.to,
            policy=self._policy(),
            begun=self._crossing.begun if self._crossing else None,
            held=self._held_until > now.timestamp(),
            now=now,
            moving_for=elapsed() - self._chronicle.moving_since if self._chronicle.moving_since else 0.0,
        )

    @workflow.query(description="How far the move is: phase, percent, ETA with its band, rates, lanes")
    def progress(self) -> Progress:
        return self._chronicle.progress

    @workflow.query(description="Phases, every decision with its reason and figures, and which goals were kept")
    def decisions(self) -> Story:
        return self._chronicle.story(self._goals)

    @workflow.signal(name="novacron.progress", description="Report of the move step; not for people")
    def report(self, progress: Progress) -> None:
        self._chronicle.take(progress)

    @workflow.signal(name="novacron.decision", description="A decision of the move step; not for people")
    def decided(self, decision: Decision) -> None:
        self._chronicle.decide(decision)

    @workflow.update(description="Stop the move; the VM stays on its source. Argument: the reason, as text")
    def cancel(self, reason: str = "") -> str:
        self._stop = reason or "no reason given"
        if self._task is not None:
            self._task.cancel()
        return (
            f"cancelled while {self.progress().phase}; the VM stays on its source unless it is switching right now. "
            f"The workflow ends when everything started has really ended"
        )

    @cancel.validator
    def _still_open(self, reason: str = "") -> None:
        steering.may_cancel(self._standing())

    @workflow.update(description="Bound what the move puts on the link. Argument: MiB a second, 0 for no bound")
    async def set_bandwidth(self, mib: int) -> str:
        self._changes["wire_mib"] = mib
        bound = f"{mib} MiB/s on the link" if mib else "no bound on the link"
        self._say(bound)
        if self._crossing is None or not self._crossing.moving:
            return f"{bound}: noted while {self.progress().phase}, it holds from the moment the data path is open"
        if self._standing().held:
            await self._tell(self._crossing)
            return f"{bound}: noted, it holds when the move is resumed"
        await self._bound(self._crossing, mib)
        return f"{bound}, from now on"

    @set_bandwidth.validator
    def _has_a_link(self, mib: int) -> None:
        steering.may_limit(self._standing(), mib)

    @workflow.update(
        description="Change goals while it runs. Argument: an object of policy fields, such as finish_within, "
        "finish_by, max_downtime_ms, max_slowdown, allow_pause"
    )
    async def set_policy(self, changes: dict[str, Any]) -> str:
        standing = self._standing()
        policy = steering.changed(standing, changes)
        self._changes |= {
            field: value for field, value in policy if field in changes or value != getattr(standing.policy, field)
        }
        told = ", ".join(f"{field} = {getattr(policy, field)}" for field in changes)
        self._say(told)
        if self._crossing is None or not self._crossing.moving:
            return f"{told}: noted while {standing.phase}, it holds from the moment the VM moves"
        if policy.wire_mib != standing.policy.wire_mib and not standing.held:
            await self._bound(self._crossing, policy.wire_mib)
        if standing.phase == "moving":
            await self._tell(self._crossing)
        return f"{told}, from now on"

    @set_policy.validator
    def _can_change(self, changes: dict[str, Any]) -> None:
        steering.changed(self._standing(), changes)

    @workflow.update(
        description="Let nothing cross the link for a while; the guest runs on at its source. Argument: seconds at "
        "most. The deadline of the move goes on"
    )
    async def pause(self, seconds: float = 600.0) -> str:
        crossing = self._moving()
        self._held_until = (workflow.now() + timedelta(seconds=seconds)).timestamp()
        try:
            await self._tell(crossing)
        except ApplicationError as error:
            if error.type == failures.REFUSED:  # any other failure may have come too late: then it can be resumed
                self._held_until = 0.0
            raise
        self._say(f"paused for {seconds:g} s")
        return f"paused for {seconds:g} s at most: nothing crosses the link, the guest runs on at its source"

    @pause.validator
    def _can_pause(self, seconds: float = 600.0) -> None:
        steering.may_pause(self._standing(), seconds)

    @workflow.update(description="Let a paused move go on")
    async def resume(self) -> str:
        crossing = self._moving()
        before, self._held_until = self._held_until, 0.0
        try:
            await self._tell(crossing)
        except ApplicationError:
            self._held_until = before
            raise
        self._say("resumed")
        return "the move goes on"

    @resume.validator
    def _is_paused(self) -> None:
        steering.may_resume(self._standing())

    @workflow.update(
        description="Let the VM switch now; the rest of its memory follows. Needs allow_post_copy, or mode post-copy "
        "or hybrid"
    )
    async def post_copy_now(self) -> str:
        try:
            seen = await self._source.start_post_copy(self._ref)
        except ActivityError as error:
            raise errors.final(*errors.explain(error)) from error
        if self.progress().phase == "moving" and verdict.presence(seen) == "half":
            self._chronicle.enter("post-copy")
        return f"{self._request.vm} runs on {self._request.to}; the rest of its memory follows"

    @post_copy_now.validator
    def _may_switch(self) -> None:
        steering.may_switch_now(self._standing())

    def _say(self, change: str) -> None:
        self._chronicle.tell(events.PolicyChanged(vm=self._request.vm, change=change))

    def _moving(self) -> Crossing:
        if self._crossing is None or not self._crossing.moving:
            raise errors.final(failures.REFUSED, "the move step does not run right now. Ask again in a moment")
        return self._crossing

    async def _bound(self, crossing: Crossing, mib: int) -> None:
        try:
            await crossing.limit(mib)
        except ActivityError as error:
            raise errors.final(*errors.explain(error)) from error

    async def _tell(self, crossing: Crossing) -> None:
        """Hand the move step the policy and the pause as they stand, and wait until it acts on them."""
        held = self._held_until if self._held_until > workflow.now().timestamp() else 0.0
        try:
            steered = await crossing.steer(self._policy(), held)
        except ActivityError as error:
            raise errors.final(*errors.explain(error)) from error
        if steered.refused:
            raise errors.final(failures.REFUSED, steered.answer)
