"""What an evacuation tells the world: each new phase, each twentieth of its VMs on the way, and how each look ended."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from temporalio import workflow

from models import metrics
from models.events import EvacuationProgress, EventData, HostDrained
from models.fleet import FleetPhase, FleetProgress
from workflows import errors
from workflows.events.telling import Telling
from workflows.fleet.log import FleetLog

with workflow.unsafe.imports_passed_through():
    from activities import meters

STEPS = 20
"""Events of one phase at most."""


class HostNews:
    def __init__(self) -> None:
        self._telling = Telling()
        self._host = ""
        self._phase: FleetPhase = "planning"
        self._done = 0
        """VMs whose fate was told."""

    @asynccontextmanager
    async def of(self, site: str, host: str, log: FleetLog) -> AsyncIterator[None]:
        """While the host is in maintenance. However that ends is told: it takes VMs again."""
        self._host = host
        self._telling.about(site, host)
        try:
            yield
        except BaseException as error:
            if errors.handled(error):
                log.enter("cancelled" if errors.cancelled(error) else "failed")
                await self._end(log.progress)
            raise
        await self._end(log.progress)

    def known(self, progress: FleetProgress, moved: int) -> None:
        """What a run before this one has told."""
        self._phase, self._done = progress.phase, moved

    def hear(self, progress: FleetProgress) -> None:
        """Progress as it stands; told when it is news."""
        done = progress.moved + progress.failed
        if progress.phase == self._phase and done < self._done + max(1, progress.total // STEPS):
            return
        self._phase, self._done = progress.phase, done
        self._telling.tell(_event(self._host, progress))

    def looked(self, phase: FleetPhase) -> None:
        """A look at the host has ended in this phase."""
        meters.count(workflow.metric_meter(), metrics.LOOKS, host=self._host, outcome=phase)

    async def pass_on(self) -> None:
        """Before it goes on as a new run."""
        await self._telling.end()

    async def _end(self, progress: FleetProgress) -> None:
        self._telling.tell(_event(self._host, progress), final=True)
        await self._telling.end()


def _event(host: str, progress: FleetProgress) -> EventData:
    if progress.phase == "drained":
        return HostDrained(host=host, moved=progress.moved, seconds=progress.elapsed)
    return EvacuationProgress(
        host=host,
        phase=progress.phase,
        moved=progress.moved,
        moving=progress.running,
        waiting=progress.waiting,
        failed=progress.failed,
        skipped=progress.stuck,
    )
