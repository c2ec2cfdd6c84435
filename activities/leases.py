"""Activities of a site's control worker: the owner records, in the store that the site's settings name."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from temporalio import activity
from temporalio.client import Client, WorkflowExecutionStatus

from activities import errors
from dwcp.consensus import Held, LeaseStore, Lost, StoreUnavailable, open_store
from models import failures, ids
from models.host import SiteSettings
from models.lease import HoldLease, Lease, LeasePage, LeaseQuery, TakeLease
from models.recovery import DeadQuery, DeadRun, DeadRuns

logger = logging.getLogger(__name__)

T = TypeVar("T")

UNCLEAN = ("Terminated", "TimedOut", "Failed", "Canceled")
"""Ends after which something may be left. Failed runs clean up themselves, but a host may have stayed away."""


class LeaseActivities:
    def __init__(self, settings: SiteSettings, client: Client | None, store: LeaseStore | None = None) -> None:
        """`store` replaces the one that the settings name."""
        self._settings = settings
        self._client = client
        self._store = store

    @activity.defn(name="novacron.take_lease")
    async def take_lease(self, wish: TakeLease) -> Lease:
        """The VM for this operation, under a new token; asked again, the same."""
        return await self._ask(lambda store: store.take(wish))

    @activity.defn(name="novacron.renew_lease")
    async def renew_lease(self, held: HoldLease) -> Lease:
        return await self._ask(lambda store: store.renew(held))

    @activity.defn(name="novacron.hand_over_lease")
    async def hand_over_lease(self, held: HoldLease) -> Lease:
        """The one place where a VM's owner changes while the operation goes on."""
        return await self._ask(lambda store: store.hand_over(held))

    @activity.defn(name="novacron.release_lease")
    async def release_lease(self, held: HoldLease) -> Lease | None:
        """The operation is over; with a host, that one owns the VM from now on."""
        return await self._ask(lambda store: store.release(held))

    @activity.defn(name="novacron.list_leases")
    async def list_leases(self, query: LeaseQuery) -> LeasePage:
        return await self._ask(lambda store: store.list(query))

    @activity.defn(name="novacron.dead_runs")
    async def dead_runs(self, query: DeadQuery) -> DeadRuns:
        """Moves and recoveries that ended in a way that may have left something, newest first, one for each VM."""
        if self._client is None:
            raise RuntimeError("LeaseActivities.dead_runs needs the Temporal client it was made without")
        ended = " OR ".join(f"ExecutionStatus = '{status}'" for status in UNCLEAN)
        moves = f"WorkflowType = 'novacron.MigrateVm' AND ({ended})"
        recoveries = f"WorkflowType = 'novacron.RecoverVm' AND ({ended} OR ExecutionStatus = 'Completed')"
        since = f"Site = '{query.site}' AND CloseTime > '{_ago(query.since_minutes)}'"
        found: dict[str, DeadRun] = {}
        seen: set[str] = set()
        async for run in self._client.list_workflows(f"{since} AND (({moves}) OR ({recoveries}))"):
            activity.heartbeat()
            named = ids.parse_migrate_vm(run.id)
            if named is None or named[1] in seen:
                continue
            seen.add(named[1])
            if run.status == WorkflowExecutionStatus.COMPLETED:
                continue  # a recovery that went well, after whatever died before
            if len(found) == query.limit:
                return DeadRuns(runs=tuple(found.values()), more=True)
            status = run.status.name if run.status is not None else "unknown"
            found[named[1]] = DeadRun(vm=named[1], workflow_id=run.id, run_id=run.run_id, status=status)
        return DeadRuns(runs=tuple(found.values()))

    async def _ask(self, work: Callable[[LeaseStore], T]) -> T:
        try:
            return await asyncio.to_thread(lambda: work(self._open()))
        except (Held, Lost) as error:
            raise errors.final(failures.REFUSED, str(error)) from error
        except StoreUnavailable as error:
            logger.warning("%s", error)
            raise errors.retryable(failures.LEASES_UNAVAILABLE, str(error)) from error

    def _open(self) -> LeaseStore:
        if self._store is None:
            self._store = open_store(self._settings.leases, os.environ)
        return self._store


def _ago(minutes: int) -> str:
    return (datetime.now(UTC) - timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")
