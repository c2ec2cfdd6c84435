"""The cut-over of a move from a cloud, and its undoing.

Forward: the instance is stopped, its last changes are brought, every image is proved to hold what the cloud gave, the
VM is defined, and started once the cloud says again that the instance is stopped. Backward: the VM is off on its host,
for certain, and what it wrote there is taken back, before the instance may run again; if that cannot be had, nothing is
started, because two copies are worse than none.
"""

from __future__ import annotations

from collections.abc import Callable

from temporalio import workflow
from temporalio.exceptions import ActivityError

from models import failures
from models.cloud_bring import CloudBringRequest, DefineArrival, EndArrival, Hardware, StartArrival
from workflows import errors
from workflows.calls.arrivals import ArrivalHost, SourceCloud
from workflows.cloud.fetching import Fetching

WATCH = 10.0
"""Seconds that the VM has to run on."""


class Landing:
    """One attempt to cut over."""

    def __init__(
        self,
        wanted: CloudBringRequest,
        host: ArrivalHost,
        source: SourceCloud,
        copy: Fetching,
        instance: str,
        hardware: Hardware,
        ran: bool,
        attempt: int,
    ) -> None:
        """`ran`: the instance ran before the move, so an undo lets it run again. `attempt`: counts from 1."""
        self._wanted = wanted
        self._host = host
        self._source = source
        self._copy = copy
        self._instance = instance
        self._hardware = hardware
        self._ran = ran
        self._attempt = attempt
        self._stopping = self._defining = False

    async def run(self, obey: Callable[[], None]) -> float:
        """Until the VM runs and is checked; the seconds that it was away. Raises ActivityError, or ApplicationError for
        what is not as it has to be."""
        wanted, copy, began = self._wanted, self._copy, workflow.time()
        self._stopping = True
        await self._source.stop(self._instance)
        obey()
        await copy.last(obey, wanted.downtime)
        obey()
        self._defining = True
        await self._host.define(DefineArrival(move=copy.move, vm=copy.ref, disks=copy.images, hardware=self._hardware))
        await self._source.still_stopped(self._instance)
        obey()
        started = await self._host.start(
            StartArrival(vm=copy.ref, disks=copy.images, watch=WATCH, attempt=self._attempt)
        )
        obey()
        if started.good and wanted.verify is not None:
            started = await self._source.check(wanted.verify)
        if not started.good:
            raise errors.final(failures.MIGRATION_FAILED, f"{wanted.vm} on {wanted.to}: {started.said}")
        obey()
        await self._source.still_stopped(self._instance)
        return workflow.time() - began

    async def undo(self) -> None:
        """Back to the instance, which runs again if it did before. Raises Ambiguous when that would not be safe."""
        if self._defining:
            await self._end_here()
        if not self._stopping or not self._ran:
            return
        try:
            await self._source.start(self._instance)
        except ActivityError as error:
            raise errors.final(
                failures.AMBIGUOUS,
                f"{self._wanted.vm} is stopped: instance {self._instance} could not be started again "
                f"({errors.explain(error)[1]}), and nothing of it runs on {self._wanted.to}. Start it in the "
                f"provider's console",
            ) from error

    async def _end_here(self) -> None:
        """What its guest wrote here is taken back: the instance goes on from where it was stopped."""
        order = EndArrival(vm=self._copy.ref, disks=self._copy.images, revert=True, attempt=self._attempt)
        try:
            await self._host.end(order)
        except ActivityError as error:
            raise errors.final(
                failures.AMBIGUOUS,
                f"{self._wanted.vm}: whether it is off on {self._wanted.to} is not known "
                f"({errors.explain(error)[1]}); instance {self._instance} was not started again. See `virsh list "
                f"--all` there, end it, and then start the instance in the provider's console",
            ) from error
