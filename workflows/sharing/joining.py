"""A move's part in sharing the site's bandwidth. Best effort: without an allocator it goes on with what it has."""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError
from temporalio.workflow import ActivityConfig

from models import queues
from models.migration import MigrationPolicy
from models.shares import Leave, Member
from workflows import errors
from workflows.calls import deadlines

with workflow.unsafe.imports_passed_through():
    from activities.shares import SharesActivities

_WITHIN = timedelta(seconds=20)


class Sharing:
    def __init__(self, site: str, source: str, to: str, priority: int) -> None:
        self._site, self._source, self._to, self._priority = site, source, to, priority
        self._migration_id = ""

    async def join(self, migration_id: str, policy: MigrationPolicy) -> bool:
        """The data path is open: ask for a share. False: nobody shares out."""
        self._migration_id = migration_id
        return await self.ask(policy.wire_mib)

    async def ask(self, cap_mib: int) -> bool:
        """Ask anew, with this bound of one's own (MiB/s, 0: none)."""
        member = Member(
            workflow_id=workflow.info().workflow_id,
            migration_id=self._migration_id,
            source=self._source,
            to=self._to,
            priority=self._priority,
            cap_mib=cap_mib,
        )
        try:
            line = await workflow.execute_activity_method(
                SharesActivities.join_shares, member, **self._to_control("a share of the bandwidth")
            )
        except ActivityError as error:
            if errors.cancelled(error):
                raise
            return False
        return line.told

    async def leave(self) -> None:
        """What nobody could be told of is found out by the allocator's next look."""
        if not self._migration_id:
            return
        order, self._migration_id = Leave(workflow_id=workflow.info().workflow_id), ""
        try:
            await workflow.execute_activity_method(
                SharesActivities.leave_shares, order, **self._to_control("free its share of the bandwidth")
            )
        except ActivityError as error:
            if errors.cancelled(error):
                raise

    def _to_control(self, what: str) -> ActivityConfig:
        config = ActivityConfig(
            task_queue=queues.control(self._site), summary=f"{self._site}: {what}", **deadlines.CONTROL
        )
        config["schedule_to_close_timeout"] = _WITHIN
        return config
