"""The cut-over of a move between clouds, and its undoing.

Forward: the instance is stopped, its last changes are brought across and proved equal, a new instance is
made and checked, and the old one is seen to be stopped still. Backward: what this attempt started in the new cloud is
terminated, and the provider has said so, before the old instance may run again; if that cannot be had, nothing is
started, because two copies are worse than none.
"""

from __future__ import annotations

from collections.abc import Callable

from temporalio import workflow
from temporalio.exceptions import ActivityError

from models import failures
from models.cloud_transfer import CloudTransferRequest
from models.clouds import Architecture
from workflows import errors
from workflows.calls.arrivals import SourceCloud
from workflows.calls.cloud import CloudSite
from workflows.cloud.launching import Launching
from workflows.cloud.relaying import Relaying


class Passage(Launching):
    """One attempt to cut over, or (`test`) to boot an isolated copy."""

    def __init__(
        self,
        wanted: CloudTransferRequest,
        source: SourceCloud,
        cloud: CloudSite,
        copy: Relaying,
        name: str,
        instance: str,
        architecture: Architecture,
        ran: bool,
    ) -> None:
        """`instance` is the old one; `ran`: it ran before the move, so an undo lets it run again."""
        super().__init__(wanted, cloud, copy, name, architecture, wanted.firmware)
        self._wanted = wanted
        self._from = source
        self._copy = copy
        self._old = instance
        self._ran = ran
        self._stopping = False

    async def run(self, obey: Callable[[], None]) -> float:
        """Until the new instance runs and is checked; the seconds that the VM was away. Raises ActivityError, or
        ApplicationError for what is not as it has to be."""
        wanted, began = self._wanted, workflow.time()
        self._stopping = True
        await self._from.stop(self._old)
        obey()
        await self._copy.last(obey, wanted.downtime)
        obey()
        await self._from.still_stopped(self._old)
        obey()
        await self.start(wanted.network, wanted.verify, wanted.vm, obey)
        await self._from.still_stopped(self._old)
        return workflow.time() - began

    async def undo(self) -> None:
        """Back to the old instance, which runs again if it did before. Raises Ambiguous when that would not be safe."""
        await self.end_instance()
        if self._stopping and self._ran:
            try:
                await self._from.start(self._old)
            except ActivityError as error:
                raise errors.final(
                    failures.AMBIGUOUS,
                    f"{self._wanted.vm} is stopped: instance {self._old} could not be started again "
                    f"({errors.explain(error)[1]}), and nothing of it runs in {self._wanted.to}. Start it in the "
                    f"provider's console",
                ) from error
        await self._drop_image()

    def _source(self) -> tuple[str, str]:
        return f"instance {self._old}", "start that instance in the provider's console"
