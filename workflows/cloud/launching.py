"""What was copied to a cloud becomes an instance there, and how that is taken back: terminated by the provider's word,
or people are told, because two copies are worse than none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from temporalio import workflow
from temporalio.exceptions import ActivityError

from models import failures
from models.cloud_move import CloudNetwork, DiskSent, IntoCloudRequest, MakeImage, Probe, RunInstance
from models.clouds import Architecture, CloudId, Firmware
from workflows import errors
from workflows.calls.cloud import CloudSite

with workflow.unsafe.imports_passed_through():
    from clouds.tokens import token


class Copied(Protocol):
    """The disks in the cloud."""

    move: str
    made: list[CloudId]

    @property
    def disks(self) -> tuple[DiskSent, ...]: ...


class Launching:
    """Base of one attempt to cut over, or (`test`) to boot an isolated copy."""

    def __init__(
        self,
        wanted: IntoCloudRequest,
        cloud: CloudSite,
        copy: Copied,
        name: str,
        architecture: Architecture,
        firmware: Firmware,
    ) -> None:
        """`name` is the attempt's own, such as `1` or `test-1`."""
        self._into = wanted
        self._cloud = cloud
        self._copies = copy
        self._name = name
        self._architecture: Architecture = architecture
        self._firmware: Firmware = firmware
        self._image = ""
        self.instance = ""
        self._started_any = False

    async def start(self, network: CloudNetwork, verify: Probe | None, name: str, obey: Callable[[], None]) -> str:
        """An instance of what the cloud has, running and checked; what the check said."""
        wanted, copy = self._into, self._copies
        made = await self._cloud.make_image(
            MakeImage(
                place=wanted.to,
                name=f"{wanted.vm}-{copy.move}-{self._name}"[:63],
                token=self._token("image"),
                disks=tuple(disk.disk for disk in copy.disks),
                architecture=self._architecture,
                firmware=self._firmware,
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

    async def end_instance(self) -> None:
        """Terminate what this attempt started. Raises Ambiguous when the cloud does not say that it is gone."""
        if not self._started_any:
            return
        try:
            await self._cloud.end(self._token("instance"), self.instance, terminate=True)
        except ActivityError as error:
            source, by_hand = self._source()
            raise errors.final(
                failures.AMBIGUOUS,
                f"{self._into.vm}: whether instance {self.instance or '(unknown)'} in {self._into.to} is gone is "
                f"not known ({errors.explain(error)[1]}); {source} was not started again. Terminate what "
                f"has the tag novacron-token = {self._token('instance')}, then {by_hand}",
            ) from error

    async def stop_instance(self) -> None:
        """For a way back after the cut-over: stopped and kept, since people may want what it wrote."""
        await self._cloud.end(self._token("instance"), self.instance, terminate=False)

    async def drop_test(self) -> None:
        await self.end_instance()
        await self._drop_image()

    async def clean(self, kept: Sequence[str] = ()) -> None:
        """The instance has its own volumes: image and snapshots are of no more use, but for those that are `kept` as
        bases. Raises ActivityError."""
        await self._cloud.remove(self._image, [disk for disk in self._copies.made if disk not in kept])

    def _source(self) -> tuple[str, str]:
        """(what would run again, how people start it)."""
        raise NotImplementedError

    async def _drop_image(self) -> None:
        if self._image:
            image, self._image = self._image, ""
            await self._cloud.remove(image, ())

    def _token(self, step: str) -> str:
        return token(f"{workflow.info().workflow_id}/{self._copies.move}", f"{step}/{self._name}")
