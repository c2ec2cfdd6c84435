"""The cut-over of a move to a cloud, and its undoing.

Forward: the VM is stopped for good at its source, its last changes are sent, all disks are proved equal, an instance is
made and checked. Backward: what this attempt started in the cloud is terminated, and the provider has said so, before
the source may run again; if that cannot be had, nothing is started, because two copies are worse than none.
"""

from __future__ import annotations

from collections.abc import Callable

from temporalio import workflow
from temporalio.exceptions import ActivityError

from models import failures
from models.cloud_move import CloudMoveRequest, StartSource, StopSource
from workflows import errors
from workflows.calls import cloud as calls
from workflows.calls.cloud import CloudSite, SourceHost
from workflows.calls.site import Host
from workflows.cloud.copying import Copying
from workflows.cloud.launching import Launching
from workflows.site import verdict


class Crossing(Launching):
    """One attempt to cut over, or (`test`) to boot an isolated copy."""

    def __init__(self, wanted: CloudMoveRequest, host: SourceHost, cloud: CloudSite, copy: Copying, name: str) -> None:
        """`name` is the attempt's own, such as `1` or `test-1`."""
        facts = copy.facts
        super().__init__(
            wanted, cloud, copy, name, "arm64" if facts.architecture == "aarch64" else "x86_64", facts.firmware
        )
        self._wanted = wanted
        self._host = host
        self._copy = copy
        self._stopping = self._stopped = False

    async def run(self, obey: Callable[[], None]) -> float:
        """Until the instance runs and is checked; the seconds that the VM was away. Raises ActivityError, or
        ApplicationError for what is not as it has to be."""
        began = workflow.time()
        await self._stop()
        obey()
        await self._copy.last(calls.last_copy(self._wanted.downtime) if self._copy.disks else None)
        obey()
        await self.start(self._wanted.network, self._wanted.verify, self._wanted.vm, obey)
        took = workflow.time() - began
        await self._only_copy()
        return took

    async def undo(self) -> None:
        """Back to the source, which runs again if it did before. Raises Ambiguous when that would not be safe."""
        await self.end_instance()
        if self._stopping:
            facts = self._copy.facts
            watch = 0 if self._stopped else self._wanted.stop_within
            order = StartSource(vm=self._copy.ref, autostart=facts.autostart, run=facts.running, watch=watch)
            try:
                await self._host.start(order)
            except ActivityError as error:
                raise errors.final(
                    failures.AMBIGUOUS,
                    f"{self._wanted.vm} is stopped: {self._host.name} could not start it again "
                    f"({errors.explain(error)[1]}), and nothing of it runs in {self._wanted.to}. Start it there with "
                    f"`virsh start {self._wanted.vm}`",
                ) from error
        await self._drop_image()

    def _source(self) -> tuple[str, str]:
        return self._host.name, f"`virsh start {self._wanted.vm}`"

    async def _only_copy(self) -> None:
        """The source is still off: the last look before it is let go."""
        seen = await Host(self._host.site, self._host.name).where_is(self._copy.ref)
        if verdict.alive(seen):
            raise errors.final(
                failures.MIGRATION_FAILED, f"somebody started {self._wanted.vm} at its source: {verdict.describe(seen)}"
            )

    async def _stop(self) -> None:
        wanted, self._stopping = self._wanted, True
        order = StopSource(vm=self._copy.ref, within=wanted.stop_within, cut_power=wanted.cut_power)
        told = await self._host.stop(order)
        self._stopped = told.stopped
        if not told.stopped:
            raise errors.final(
                failures.REFUSED,
                f"{told.why}. Give it longer (stop_within), or allow its power to be cut (cut_power)",
            )
