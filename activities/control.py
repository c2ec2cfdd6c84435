"""Activities of a site's control worker: who belongs to the site, and whose worker is there."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from temporalio import activity
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import PollerInfo, TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client

from models.host import SiteSettings
from models.migration import AgentsAnswer, AgentsQuery

POLLED_WITHIN = timedelta(seconds=75)
"""A poll is a request that the server holds for up to 60 s, and it is stamped when it arrives: an idle worker in good
health shows a last access up to a minute old. A worker that was killed therefore still shows for as long. So this
question finds hosts that have been down for a while, before anything is started for them; what guards a step against
a host that died a moment ago is the step's own schedule-to-start deadline."""
AT_ONCE = 20


class ControlActivities:
    def __init__(self, settings: SiteSettings, client: Client | None) -> None:
        self._settings = settings
        self._client = client

    @activity.defn(name="novacron.list_hosts")
    async def list_hosts(self) -> SiteSettings:
        """The site's members, as this worker's settings file has them. Webhooks and clouds are not for histories."""
        return self._settings.model_copy(update={"webhooks": (), "clouds": ()})

    @activity.defn(name="novacron.agents_polling")
    async def agents_polling(self, query: AgentsQuery) -> AgentsAnswer:
        """Which of these task queues has a worker."""
        limit = asyncio.Semaphore(AT_ONCE)

        async def one(queue: str) -> bool:
            async with limit:
                return polled(await self._pollers(queue), datetime.now(UTC))

        answers = await asyncio.gather(*(one(queue) for queue in query.queues))
        return AgentsAnswer(polled=dict(zip(query.queues, answers, strict=True)))

    async def _pollers(self, queue: str) -> list[PollerInfo]:
        if self._client is None:
            raise RuntimeError("ControlActivities.agents_polling needs the Temporal client it was made without")
        answer = await self._client.workflow_service.describe_task_queue(
            DescribeTaskQueueRequest(
                namespace=self._client.namespace,
                task_queue=TaskQueue(name=queue),
                task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
            ),
            timeout=timedelta(seconds=10),
        )
        return list(answer.pollers)


def polled(pollers: list[PollerInfo], now: datetime) -> bool:
    """Has anyone polled lately?"""
    return any(now - poller.last_access_time.ToDatetime(tzinfo=UTC) <= POLLED_WITHIN for poller in pollers)
