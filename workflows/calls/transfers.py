"""A move between clouds, as calls: the control worker brings the disks across."""

from __future__ import annotations

from temporalio import workflow
from temporalio.workflow import ActivityConfig

from models import queues
from models.cloud_move import DiskSent
from models.cloud_transfer import ForgetTransfer, TransferDisk
from workflows.calls.cloud import SETTLE

with workflow.unsafe.imports_passed_through():
    from activities.cloud_transfers import CloudTransferActivities

_call = workflow.execute_activity_method


class Relay:
    """What carries disks of a site from one cloud to another."""

    def __init__(self, site: str) -> None:
        self._queue = queues.control(site)

    async def transfer(self, order: TransferDisk, deadline: ActivityConfig) -> DiskSent:
        what = f"bring {'what changed of ' if order.base else ''}{order.target} from {order.source} to {order.place}"
        return await _call(CloudTransferActivities.transfer_disk, order, **self._to(deadline, what))

    async def forget(self, move: str) -> None:
        order = ForgetTransfer(move=move)
        await _call(CloudTransferActivities.forget_transfer, order, **self._to(SETTLE, "forget what was sent"))

    def _to(self, deadline: ActivityConfig, what: str) -> ActivityConfig:
        return ActivityConfig(task_queue=self._queue, summary=what[:200], **deadline)
