"""The cut-over, and its undoing.

Forward: the VM is stopped for good at its source, its last changes are sent, all disks are proved equal, an instance is
made and checked. Backward: what this attempt started in the cloud is terminated, and the provider has said so, before
the source may run again; if that cannot be had, nothing is started, because two copies are worse than none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from temporalio import workflow
from temporalio.exceptions import ActivityError

from models import failures
from models.cloud_move import (
    CloudMoveRequest,
    CloudNetwork,
    MakeImage,
    Probe,
    RunInstance,
    StartSource,
    StopSource,
)
from workflows import errors
from workflows.calls import cloud as calls
from workflows.calls.cloud import CloudSite, SourceHost
from workflows.cloud.copying import Copying

with workflow.unsafe.imports_passed_through():
    from clouds.tokens import token


class Crossing:
    """One attempt to cut over, or (`test`) to boot an isolated copy."""

    def __init__(self, wanted: CloudMoveRequest, host: SourceHost, cloud: CloudSite, copy: Copying, name: str) -> None:
        """`name` is the attempt's own, such as `1` or `test-1`."""
        self._wanted = wanted
        self._host = host
        self._cloud = cloud
        self._copy = copy
        self._name = name
        self._image = ""
        self.instance = ""
        self._started_any = False
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
        return workflow.time() - began

    async def start(self, network: CloudNetwork, verify: Probe | None, name: str, obey: Callable[[], None]) -> str:
        """An instance of what the cloud has, running and checked; what the check said."""
        wanted, copy = self._wanted, self._copy
        made = await self._cloud.make_image(
            MakeImage(
                place=wanted.to,
                name=f"{wanted.vm}-{copy.move}-{self._name}"[:63],
                token=self._token("image"),
                disks=tuple(disk.disk for disk in copy.disks),
                architecture="arm64" if copy.facts.architecture == "aarch64" else "x86_64",
                firmware=copy.facts.firmware,
            )
        )
        self._image = made.id
        obey()
        self._started_any = True
        order = RunInstance(
            place=wanted.to, name=name[:63], token=self._token("instance"), image=made.id, size=wanted.size,
            network=network,
        )  # fmt: skip
        self.instance = (await self._cloud.run(order)).id
        obey()
        checked = await self._cloud.check(self.instance, verify)
        if not checked.good:
            raise errors.final(failures.MIGRATION_FAILED, f"{wanted.vm} in {wanted.to}: {checked.said}")
        return checked.said

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

    async def end_instance(self) -> None:
        """Terminate what this attempt started. Raises Ambiguous when the cloud does not say that it is gone."""
        if not self._started_any:
            return
        try:
            await self._cloud.end(self._token("instance"), self.instance, terminate=True)
        except ActivityError as error:
            raise errors.final(
                failures.AMBIGUOUS,
                f"{self._wanted.vm}: whether instance {self.instance or '(unknown)'} in {self._wanted.to} is gone is "
                f"not known ({errors.explain(error)[1]}); {self._host.name} was not started again. Terminate what "
                f"has the tag novacron-token = {self._token('instance')}, then `virsh start {self._wanted.vm}`",
            ) from error

    async def stop_instance(self) -> None:
        """For a way back after the cut-over: stopped and kept, since people may want what it wrote."""
        await self._cloud.end(self._token("instance"), self.instance, terminate=False)

    async def drop_test(self) -> None:
        await self.end_instance()
        await self._drop_image()

    async def clean(self, kept: Sequence[str]) -> None:
        """The instance has its own volumes: image and snapshots are of no more use, but for those that are `kept` as
        bases. Raises ActivityError."""
        await self._cloud.remove(self._image, [disk for disk in self._copy.made if disk not in kept])

    async def _drop_image(self) -> None:
        if self._image:
            image, self._image = self._image, ""
            await self._cloud.remove(image, ())

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

    def _token(self, step: str) -> str:
        return token(f"{workflow.info().workflow_id}/{self._copy.move}", f"{step}/{self._name}")
