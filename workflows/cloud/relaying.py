"""The disks on their way from cloud to cloud: what the new one has of each, and what will have to be removed again at
both ends."""

from __future__ import annotations

from collections.abc import Sequence

from temporalio.workflow import ActivityConfig

from models.cloud_move import DiskSent
from models.cloud_transfer import TransferDisk
from models.clouds import CloudId, Snapshot
from models.migration import VmRef
from workflows.calls.arrivals import SourceCloud
from workflows.calls.transfers import Relay
from workflows.cloud.held_rounds import HeldRounds


class Relaying(HeldRounds):
    def __init__(
        self,
        relay: Relay,
        source: SourceCloud,
        place: str,
        vm: VmRef,
        volumes: Sequence[str],
        move: str,
        *,
        deltas: bool,
        read_back: bool,
    ) -> None:
        super().__init__(source, volumes, move, deltas=deltas)
        self._relay = relay
        self._place = place
        self._read_back = read_back
        self.ref = vm
        self.made: list[CloudId] = []
        """Every disk that was ever finished in the new cloud."""
        self._bases: dict[str, str] = {}
        """By target: the snapshot that the new cloud's disk holds."""

    @property
    def held(self) -> int:
        """Nothing but what changed is compared in the last step."""
        return 0

    def outdated(self) -> list[str]:
        """Snapshots that no round needs any more, taken off the list."""
        old = [each for each in self.snapshots if each not in self._bases.values()]
        self.snapshots[:] = [each for each in self.snapshots if each not in old]
        return old

    async def forget(self) -> None:
        await self._relay.forget(self.move)

    async def _carry(
        self, target: str, snapshot: Snapshot, before: DiskSent | None, deadline: ActivityConfig, *, prove: bool
    ) -> DiskSent:
        order = TransferDisk(
            move=self.move,
            source=self._source.place,
            place=self._place,
            vm=self.ref.vm,
            target=target,
            snapshot=snapshot.id,
            base_snapshot=self._bases[target] if before else "",
            base=before.disk if before else "",
            token=self.token(f"disk/{target}/{self._number}"),
            read_back=self._read_back,
        )
        done = await self._relay.transfer(order, deadline)
        self._bases[target] = snapshot.id
        if done.disk not in self.made:
            self.made.append(done.disk)
        return done
