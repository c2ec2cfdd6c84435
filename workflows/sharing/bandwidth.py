"""novacron.Bandwidth: allots the site's bandwidth to the moves that share it, and tells their hosts at each change.

One runs per site while moves share; it starts with the first and ends some time after the last. Who is cut back is told
before who gets more, so that no capacity is exceeded in between. Should it be lost, the moves go on with what they
have, and the next one that joins starts it again.
"""

from __future__ import annotations

import asyncio
import contextlib

from temporalio import workflow
from temporalio.exceptions import ActivityError

from models import queues
from models.shares import Capacities, Leave, Member, ShareLine, SharesState
from workflows import details, errors
from workflows.calls.fleet import FleetControl
from workflows.calls.site import Control, Host
from workflows.sharing import shares

_LOOK_EVERY = 60.0
"""Seconds between looks for moves that ended without leaving, and for other settings."""
_AGAIN_AFTER = 5.0
"""Seconds before a host that could not be told is told again."""
_IDLE = 300.0
_MOST = 2000
_LOOKED_AT = 400


@workflow.defn(name="novacron.Bandwidth")
class Bandwidth:
    def __init__(self) -> None:
        self._lines: dict[str, ShareLine] = {}
        self._capacities = Capacities()
        self._changed = True

    @workflow.run
    async def run(self, state: SharesState | None = None) -> None:
        self._site = queues.site_of(workflow.info().task_queue)
        if state is not None:
            self._lines = {each.member.workflow_id: each for each in state.members} | self._lines
        self._capacities = (await Control(self._site).hosts()).bandwidth or Capacities()
        while True:
            self._changed = False
            told = await self._allot()
            self._show()
            if workflow.info().is_continue_as_new_suggested() and not self._changed:
                workflow.continue_as_new(self.shares())
            pause = _IDLE if not self._lines else _LOOK_EVERY if told else _AGAIN_AFTER
            with contextlib.suppress(TimeoutError):
                await workflow.wait_condition(lambda: self._changed, timeout=pause)
                continue
            if not self._lines and not self._changed:
                return
            await self._look()

    async def _allot(self) -> bool:
        """Work out all shares and tell those whose share has changed; False when some could not be told."""
        lines = self._lines
        wanted = shares.allocate([each.member for each in lines.values()], self._capacities)
        changes = []
        for key, share in wanted.items():
            line = lines[key]
            if not line.told or line.mib != share.mib:
                changes.append(line.model_copy(update={"mib": share.mib, "why": share.reason, "told": False}))
        less = [each for each in changes if not _gets_more(lines[each.member.workflow_id], each)]
        more = [each for each in changes if each not in less]
        if not all(await asyncio.gather(*map(self._tell, less))):
            return False
        return all(await asyncio.gather(*map(self._tell, more)))

    async def _tell(self, line: ShareLine) -> bool:
        key = line.member.workflow_id
        try:
            await Host(self._site, line.member.source).limit_to(line.member.migration_id, in_bytes(line.mib))
        except ActivityError as error:
            if errors.cancelled(error):
                raise
            return self._lines.get(key, line).member != line.member  # it has left, or asks anew: nothing is owed
        if key in self._lines and self._lines[key].member == line.member:
            self._lines[key] = line.model_copy(update={"told": True})
        return True

    async def _look(self) -> None:
        """Drop moves that have ended without leaving, and read the settings again."""
        watched = sorted(self._lines)[:_LOOKED_AT]
        try:
            self._capacities = (await Control(self._site).hosts()).bandwidth or Capacities()
            if watched:
                states = (await FleetControl(self._site).await_moves(watched, within=0)).states
                for key in watched:
                    if states.get(key) != "running":
                        self._lines.pop(key, None)
        except ActivityError as error:
            if errors.cancelled(error):
                raise

    def _show(self) -> None:
        rows = [
            f"| {each.member.workflow_id} | {each.member.source} → {each.member.to} | {each.mib:.1f} | {each.why} |"
            for each in list(self._lines.values())[:50]
        ]
        title = details.cell(f"bandwidth of {self._site}: {len(self._lines)} moves share")
        workflow.set_current_details(
            "\n".join([f"### {title}", "", "| move | | MiB/s | |", "|---|---|---|---|", *rows])
        )

    @workflow.signal(description="A move asks for a share; not for people")
    def join(self, member: Member) -> None:
        known = self._lines.get(member.workflow_id)
        if known is not None and known.member == member:
            return
        if known is None and len(self._lines) >= _MOST:
            workflow.logger.warning("%s: too many moves share, it goes on without a bound", member.workflow_id)
            return
        same_path = known is not None and known.member.migration_id == member.migration_id
        self._lines[member.workflow_id] = ShareLine(member=member, mib=known.mib if known and same_path else 0)
        self._changed = True

    @workflow.signal(description="A move shares no longer; not for people")
    def leave(self, order: Leave) -> None:
        if self._lines.pop(order.workflow_id, None) is not None:
            self._changed = True

    @workflow.query(description="Who shares, with how much (MiB/s), and why")
    def shares(self) -> SharesState:
        return SharesState(members=tuple(self._lines.values()))


def _gets_more(now: ShareLine, then: ShareLine) -> bool:
    """0 is no bound: more than any other. A newcomer has nothing yet, so its first share is more."""
    if then.mib == 0:
        return True
    return now.mib < then.mib if now.mib else not now.told


def in_bytes(mib: float) -> int:
    """Bytes a second for the host: rounded down, and never 0 for a share, because 0 is no bound."""
    return max(1, int(mib * (1 << 20))) if mib else 0
