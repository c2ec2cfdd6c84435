"""How a move asks for a slot and gives it back: messages to the workflow that keeps the site's slots."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta

from temporalio import activity
from temporalio.client import Client, WorkflowExecution, WorkflowHandle, WorkflowQueryFailedError
from temporalio.common import SearchAttributeKey
from temporalio.service import RPCError, RPCStatusCode

from activities import errors
from models import failures, ids, queues
from models.base import Model
from models.host import SiteSettings
from models.slots import MOST_LINES, GiveBack, SlotAnswer, SlotWish, SlotWishes

KEEPER = "novacron.Slots"
MOVE = "novacron.MigrateVm"
_HOSTS = SearchAttributeKey.for_keyword_list("HostIds")
_PHASE = SearchAttributeKey.for_keyword("Phase")
_BEFORE = ("checking", "waiting")
"""Phases in which a move has opened nothing."""
COUNTED_WITHIN = 4.0
"""Seconds a move that asks waits for a keeper that was just started. After that it is called, as all who wait."""
_ASKED_WITHIN = timedelta(seconds=10)
_AT_ONCE = 20


class SlotActivities:
    """Run by the site's control worker."""

    def __init__(self, settings: SiteSettings, client: Client) -> None:
        self._settings = settings
        self._client = client

    @activity.defn(name="novacron.ask_slot")
    async def ask_slot(self, wish: SlotWish) -> SlotAnswer:
        """Stand in the line, starting its keeper where there is none. May the move begin now? Asked again, it keeps its
        place."""
        handle = await self._send("ask", wish)
        deadline = time.monotonic() + COUNTED_WITHIN
        while True:
            try:
                answer: SlotAnswer = await handle.query(
                    "may_begin", wish.workflow_id, result_type=SlotAnswer, rpc_timeout=_ASKED_WITHIN
                )
            except (WorkflowQueryFailedError, RPCError) as error:
                why = f"the keeper of the slots does not answer: {error}"
                raise errors.retryable(failures.HOST_UNAVAILABLE, why) from None
            if not answer.counting or time.monotonic() >= deadline:
                return answer
            await asyncio.sleep(0.2)

    @activity.defn(name="novacron.give_slot_back")
    async def give_slot_back(self, order: GiveBack) -> None:
        """Leave the line, or free the slots. A keeper that was lost is started: others may be waiting."""
        await self._send("give_back", order)

    @activity.defn(name="novacron.count_moves")
    async def count_moves(self) -> SlotWishes:
        """Every move of the site that runs or waits for a slot, as it says itself. One that does not answer is counted
        by what Temporal's index has of it."""
        query = f'WorkflowType="{MOVE}" AND ExecutionStatus="Running" AND Site="{self._settings.site}"'
        found = [each async for each in self._client.list_workflows(query, limit=2 * MOST_LINES)]
        limit = asyncio.Semaphore(_AT_ONCE)

        async def one(each: WorkflowExecution) -> SlotWish | None:
            async with limit:
                activity.heartbeat()
                return await self._wish_of(each)

        wishes = [wish for wish in await asyncio.gather(*map(one, found)) if wish is not None]
        wishes.sort(key=lambda wish: (not wish.held, wish.since))
        return SlotWishes(wishes=tuple(wishes[:MOST_LINES]))

    async def _wish_of(self, found: WorkflowExecution) -> SlotWish | None:
        handle = self._client.get_workflow_handle(found.id, run_id=found.run_id)
        try:
            wish: SlotWish | None = await handle.query("slot_wish", result_type=SlotWish, rpc_timeout=_ASKED_WITHIN)
            return wish
        except RPCError as error:
            return None if error.status == RPCStatusCode.NOT_FOUND else _guess(found)
        except WorkflowQueryFailedError:
            return _guess(found)

    async def _send(self, signal: str, order: Model) -> WorkflowHandle[object, object]:
        site = self._settings.site
        return await self._client.start_workflow(
            KEEPER,
            id=ids.slots(site),
            task_queue=queues.control(site),
            start_signal=signal,
            start_signal_args=[order],
            static_summary=f"slots of the moves of {site}",
        )


def _guess(found: WorkflowExecution) -> SlotWish | None:
    """Of a move that does not answer: it holds what its hosts and its phase say."""
    hosts = found.typed_search_attributes.get(_HOSTS) or []
    if len(hosts) != 2 or found.typed_search_attributes.get(_PHASE) in _BEFORE:
        return None
    return SlotWish(
        workflow_id=found.id,
        run_id=found.run_id,
        source=hosts[0],
        to=hosts[1],
        since=found.start_time or datetime.now(UTC),
        held=True,
    )
