"""Disks on their way between two clouds, without either: a snapshot's number is what the other cloud's disk holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from temporalio import activity
from temporalio.exceptions import ApplicationError

from models.cloud_move import DiskSent
from models.cloud_transfer import ForgetTransfer, TransferDisk
from tests.workflow.fake_cloud import MIB, AtPlaces

if TYPE_CHECKING:
    from tests.workflow.fake_site import FakeSite


class FakeTransfers(AtPlaces):
    """CloudTransferActivities of the site."""

    def __init__(self, site: FakeSite) -> None:
        super().__init__(site)
        self.orders: list[TransferDisk] = []
        self.changes: list[int] = []
        """Bytes that differ at each round, the first copy not counted; then none."""
        self.forgotten: list[str] = []
        self._holds: dict[str, str] = {}
        """Disk of the other cloud -> snapshot."""

    @activity.defn(name="novacron.transfer_disk")
    async def transfer_disk(self, order: TransferDisk) -> DiskSent:
        there = await self._enter("transfer_disk", order.place)
        here = self._of(order.source)
        assert order.snapshot in here.disks, "a snapshot that was removed"
        came = 8 * MIB
        if order.base:
            assert order.base in there.disks, "a disk that was removed"
            assert order.base_snapshot in here.disks, "a base that was removed"
            if self._holds[order.base] != order.base_snapshot:
                raise ApplicationError("another snapshot", type="SourceChanged", non_retryable=True)
            came = self.changes.pop(0) if self.changes else 0
        self.orders.append(order)
        disk = f"disk-{order.token[:8]}"
        there.disks[disk], self._holds[disk] = here.disks[order.snapshot], order.snapshot
        digest = f"{there.disks[disk]:064x}"
        return DiskSent(
            target=order.target, disk=disk, size=64 * MIB, content=digest, source=digest if order.read_back else "",
            bytes=came, seconds=1,
        )  # fmt: skip

    @activity.defn(name="novacron.forget_transfer")
    async def forget_transfer(self, order: ForgetTransfer) -> None:
        self.forgotten.append(order.move)
