"""The disks on their way home: what the host has of each, and the snapshots that will have to be removed again."""

from __future__ import annotations

from collections.abc import Sequence

from temporalio.workflow import ActivityConfig

from models.cloud_bring import TARGETS, ReceiveDisk
from models.cloud_move import DiskSent
from models.clouds import Snapshot
from models.disks import DiskImage
from models.migration import VmRef
from workflows.calls.arrivals import ArrivalHost, SourceCloud
from workflows.cloud.held_rounds import HeldRounds

FORMAT = "qcow2"


class Fetching(HeldRounds):
    def __init__(
        self,
        host: ArrivalHost,
        source: SourceCloud,
        vm: VmRef,
        volumes: Sequence[str],
        folder: str,
        move: str,
        *,
        deltas: bool = True,
    ) -> None:
        """`deltas`: the cloud tells what changed; otherwise each round brings all."""
        super().__init__(source, volumes, move, deltas=deltas)
        self._host = host
        self.ref = vm
        self.images = tuple(
            DiskImage(target=target, path=f"{folder}/{vm.vm}-{target}-{move}.{FORMAT}", format=FORMAT)
            for target, _ in zip(TARGETS, volumes, strict=False)
        )
        """Under names that no other move has: nothing that is there is ever written to."""
        self.made = self.snapshots

    async def settle(self, *, keep: bool, autostart: bool = False) -> None:
        await self._host.settle(self.move, self.ref, self.images, keep=keep, autostart=autostart)

    async def _carry(
        self, target: str, snapshot: Snapshot, before: DiskSent | None, deadline: ActivityConfig, *, prove: bool
    ) -> DiskSent:
        order = ReceiveDisk(
            move=self.move,
            place=self._source.place,
            vm=self.ref,
            target=target,
            path=next(image.path for image in self.images if image.target == target),
            disk=snapshot.id,
            base=before.disk if before else "",
            token=self.token(f"disk/{target}/{self._number}"),
            prove=prove,
        )
        return await self._host.receive(order, deadline)
