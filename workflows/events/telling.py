"""What a workflow tells the world: events in order, handed over to a workflow that delivers them on its own.

`tell` returns at once. The events of a run go to one workflow, novacron.DeliverEvents, which outlives it: a webhook
that is down for hours holds no move open. Handing over is a short activity that needs nobody but Temporal; it is waited
for only at the end, and if it fails nothing more is told: telling never fails what is told of.
"""

from __future__ import annotations

import asyncio

from temporalio import workflow
from temporalio.exceptions import ActivityError

from models.events import CloudEvent, EventBatch, EventData, Teller
from workflows.calls.site import Control

MOST = 300
"""Events of one run; the last ones, told while it ends, come on top."""
BATCH = 50


class Telling:
    """Of one run. Nothing is told before `about` was called: a run with wrong input is nobody's."""

    def __init__(self) -> None:
        self._site = ""
        self._subject = ""
        self._outbox: list[CloudEvent] = []
        self._told = 0
        self._last = False
        self._task: asyncio.Task[None] | None = None

    def about(self, site: str, subject: str) -> None:
        """`subject`: the VM or host that the run is about."""
        self._site, self._subject = site, subject

    def tell(self, data: EventData, final: bool = False) -> None:
        """`final`: it says how the run ends, and is told whatever came before."""
        if not self._site or (self._told >= MOST and not final):
            return
        self._told += 1
        info = workflow.info()
        self._outbox.append(
            CloudEvent.of(
                data,
                site=self._site,
                workflow_id=info.workflow_id,
                run_id=info.run_id,
                sequence=self._told,
                subject=self._subject,
                time=workflow.now(),
            )
        )
        if self._task is None:
            self._task = asyncio.create_task(self._hand_over())

    async def end(self) -> None:
        """Before the run returns, fails, or continues as new: all that was told is in Temporal's hands after this."""
        self._last = True
        if self._task is not None:
            await self._task

    async def _hand_over(self) -> None:
        """What comes while one batch is on its way goes with the next."""
        info = workflow.info()
        teller = Teller(workflow_id=info.workflow_id, run_id=info.run_id)
        last = False
        while not last:
            await workflow.wait_condition(lambda: bool(self._outbox) or self._last)
            batch, self._outbox = self._outbox[:BATCH], self._outbox[BATCH:]
            last = self._last and not self._outbox
            order = EventBatch(site=self._site, subject=self._subject, teller=teller, events=tuple(batch), last=last)
            try:
                await Control(self._site).tell(order)
            except ActivityError as error:
                workflow.logger.error("events of this run are not told any more: %s", error.cause)
                self._site = ""
                return
