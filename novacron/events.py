"""The log of events: what `novacron events` shows, read from Temporal itself.

Every run's events stand in the history of the workflow that delivers them (novacron.DeliverEvents), with or without
webhooks, from the moment they were told until Temporal forgets that run. Reading them needs no worker, and no second
store that could disagree with the first.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta

from temporalio.api.common.v1 import Payloads
from temporalio.client import Client, WorkflowExecution, WorkflowExecutionStatus
from temporalio.service import RPCError

from models.events import CloudEvent, EventBatch
from novacron import connection, watch

EVERY = 2.0
"""Seconds between two looks of `follow`."""
AT_ONCE = 8
_MOST_RUNS = 1000


class EventLog:
    def __init__(self, client: Client, site: str, vm: str | None = None) -> None:
        self._client = client
        self._query = f'WorkflowType = "novacron.DeliverEvents" AND Site = "{site}"'
        if vm is not None:
            self._query += f' AND VmId = "{vm}"'
        self._complete: dict[str, list[CloudEvent]] = {}
        """Deliveries that ended: their events do not change any more."""

    async def since(self, moment: datetime, last: int | None = None) -> list[CloudEvent]:
        """Events from `moment` on, oldest first; only the last so many. Of at most 1000 runs, the newest."""
        limit = asyncio.Semaphore(AT_ONCE)

        async def one(run: WorkflowExecution) -> list[CloudEvent]:
            async with limit:
                return await self._events(run)

        runs = [run async for run in self._client.list_workflows(self._query + _open_since(moment), limit=_MOST_RUNS)]
        found = {event.id: event for events in await asyncio.gather(*map(one, runs)) for event in events}
        chosen = sorted(
            (event for event in found.values() if event.time >= moment), key=lambda event: (event.time, event.sequence)
        )
        return chosen if last is None else chosen[-last:]

    async def follow(
        self, moment: datetime, last: int | None = None, every: float = EVERY
    ) -> AsyncGenerator[CloudEvent, None]:
        """First what `since` gives, then each new event, without end. A restart of Temporal is waited out."""
        seen: set[str] = set()
        loop = asyncio.get_running_loop()
        heard = loop.time()
        while True:
            try:
                events = await self.since(moment)
                heard = loop.time()
            except RPCError as error:
                if error.status not in watch.AWAY or loop.time() - heard > watch.PATIENCE:
                    raise connection.from_rpc(error) from error
                events = []
            shown = events[-last:] if last is not None and not seen else events
            for event in shown:
                if event.id not in seen:
                    yield event
            seen |= {event.id for event in events}
            await asyncio.sleep(every)

    async def _events(self, run: WorkflowExecution) -> list[CloudEvent]:
        if run.run_id in self._complete:
            return self._complete[run.run_id]
        found: list[CloudEvent] = []
        handle = self._client.get_workflow_handle(run.id, run_id=run.run_id)
        async for event in handle.fetch_history_events():
            if event.HasField("workflow_execution_signaled_event_attributes"):
                found += await self._batch(event.workflow_execution_signaled_event_attributes.input)
        if run.status != WorkflowExecutionStatus.RUNNING:
            self._complete[run.run_id] = found
        return found

    async def _batch(self, payloads: Payloads) -> tuple[CloudEvent, ...]:
        (batch,) = await self._client.data_converter.decode(payloads.payloads[:1], [EventBatch])
        return batch.events if isinstance(batch, EventBatch) else ()


def _open_since(moment: datetime) -> str:
    """Deliveries that could hold an event of later than `moment`: those still open, or closed after it."""
    stamp = moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f' AND (ExecutionStatus = "Running" OR CloseTime >= "{stamp}")'


def ago(seconds: float) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=seconds)
