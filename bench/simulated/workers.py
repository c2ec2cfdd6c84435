"""One real Temporal worker for each simulated host, on the host's own queue, with the poll behaviour of the real one.

A thousand of them fit one process: they share one connection, and each costs about a sixth of a MiB.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client
from temporalio.worker import PollerBehaviorSimpleMaximum, Worker

from bench.simulated.host import SimulatedFleetHost, SimulatedHost
from bench.simulated.site import Site
from models import queues
from workers.runtime import HEARTBEAT_THROTTLE

SLOTS = 8
POLLERS = 2
AT_ONCE = 20


class Workers:
    """The workers of a site's hosts. `silent` hosts get none."""

    def __init__(self, client: Client, site: Site, median: float, silent: Iterable[str] = ()) -> None:
        self._client = client
        self._site = site
        self._running: dict[str, AsyncExitStack] = {}
        self._hosts = {
            name: SimulatedHost(site, host, median, client)
            for name, host in site.hosts.items()
            if name not in set(silent)
        }

    async def __aenter__(self) -> Self:
        """A few at a time, each waited for: the server makes a record of every new queue, and a thousand at once would
        time out and be tried again."""
        names = list(self._hosts)
        for first in range(0, len(names), AT_ONCE):
            group = names[first : first + AT_ONCE]
            for name in group:
                await self.start(name)
            await asyncio.gather(*(self._polled(name) for name in group))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.gather(*(self.stop(name) for name in list(self._running)))

    async def start(self, name: str) -> None:
        stack = AsyncExitStack()
        await stack.enter_async_context(self._worker(name))
        self._running[name] = stack

    async def stop(self, name: str) -> None:
        """The worker ends at once; the moves of its host go on."""
        await self._running.pop(name).aclose()

    async def _polled(self, name: str) -> None:
        question = DescribeTaskQueueRequest(
            namespace=self._client.namespace,
            task_queue=TaskQueue(name=queues.host(self._site.name, name)),
            task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
        )
        while not (await self._client.workflow_service.describe_task_queue(question, retry=True)).pollers:
            await asyncio.sleep(0.1)

    def _worker(self, name: str) -> Worker:
        host = self._hosts[name]
        return Worker(
            self._client,
            task_queue=queues.host(self._site.name, name),
            identity=f"{name}@simulated",
            activities=[*activities_of(host), *activities_of(SimulatedFleetHost(self._site.hosts[name]))],
            max_concurrent_activities=SLOTS,
            activity_task_poller_behavior=PollerBehaviorSimpleMaximum(POLLERS),
            max_heartbeat_throttle_interval=HEARTBEAT_THROTTLE,
            default_heartbeat_throttle_interval=HEARTBEAT_THROTTLE,
            graceful_shutdown_timeout=timedelta(0),
        )


def activities_of(host: object) -> list[Callable[..., Any]]:
    """The methods that are activities."""
    members = [getattr(host, name) for name in dir(host) if not name.startswith("_")]
    return [member for member in members if hasattr(member, "__temporal_activity_definition")]
