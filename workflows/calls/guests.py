"""A guest that is made ready for a cloud, as calls to the host that it leaves."""

from __future__ import annotations

from temporalio import workflow
from temporalio.workflow import ActivityConfig

from models import queues
from models.cloud_guests import DropLayers, GuestForecast, GuestPrepared, LayersDropped, LookAtGuest, PrepareGuest
from workflows.calls.cloud import SETTLE, bounded

with workflow.unsafe.imports_passed_through():
    from activities.cloud_guests import CloudGuestActivities

_call = workflow.execute_activity_method
LOOK = bounded(1800, attempts=3, heartbeat=20)
PREPARE = bounded(3 * 3600, attempts=3, heartbeat=20)
"""The VM is off meanwhile: a guest that cannot be prepared in three attempts is started again."""


class Guests:
    def __init__(self, site: str, host: str) -> None:
        self._host = host
        self._queue = queues.host(site, host)

    async def look(self, order: LookAtGuest) -> GuestForecast:
        what = f"what would have to be changed in {order.vm.vm}?"
        return await _call(CloudGuestActivities.look_at_guest, order, **self._to(LOOK, what))

    async def prepare(self, order: PrepareGuest) -> GuestPrepared:
        what = f"make {order.vm.vm} ready for {order.target}, in a layer over its image"
        return await _call(CloudGuestActivities.prepare_guest, order, **self._to(PREPARE, what))

    async def drop(self, order: DropLayers) -> LayersDropped:
        what = f"drop what was prepared of {order.vm.vm}"
        return await _call(CloudGuestActivities.drop_layers, order, **self._to(SETTLE, what))

    def _to(self, deadline: ActivityConfig, what: str) -> ActivityConfig:
        return ActivityConfig(task_queue=self._queue, summary=f"{self._host}: {what}"[:200], **deadline)
