"""How a move joins and leaves those that share the site's bandwidth: messages to the workflow that allots it."""

from __future__ import annotations

import asyncio
import time

from temporalio import activity
from temporalio.client import Client, WorkflowQueryFailedError
from temporalio.service import RPCError

from models import ids, queues
from models.host import SiteSettings
from models.shares import Leave, Member, ShareLine, SharesState

ALLOCATOR = "novacron.Bandwidth"
TOLD_WITHIN = 8.0
"""Seconds a joining move waits until its host has its share. After that it goes on, and is told later."""


class SharesActivities:
    """Run by the site's control worker."""

    def __init__(self, settings: SiteSettings, client: Client) -> None:
        self._settings = settings
        self._client = client

    @activity.defn(name="novacron.join_shares")
    async def join_shares(self, member: Member) -> ShareLine:
        """Join (or change the own bound), starting the allocator where there is none. Its share, if it has one yet."""
        site = self._settings.site
        handle = await self._client.start_workflow(
            ALLOCATOR,
            id=ids.bandwidth(site),
            task_queue=queues.control(site),
            start_signal="join",
            start_signal_args=[member],
            static_summary=f"bandwidth of the moves of {site}",
        )
        deadline = time.monotonic() + TOLD_WITHIN
        while time.monotonic() < deadline:
            try:
                state: SharesState = await handle.query("shares", result_type=SharesState)
            except (WorkflowQueryFailedError, RPCError):
                break
            for line in state.members:
                if line.told and line.member == member:
                    return line
            await asyncio.sleep(0.2)
        return ShareLine(member=member, mib=0, why="not told yet")

    @activity.defn(name="novacron.leave_shares")
    async def leave_shares(self, order: Leave) -> None:
        """Free the share. Where no allocator runs there is nothing to free."""
        try:
            await self._client.get_workflow_handle(ids.bandwidth(self._settings.site)).signal("leave", order)
        except RPCError as error:
            activity.logger.info("no allocator to leave: %s", error.message)
