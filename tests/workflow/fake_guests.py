"""A host that makes guests ready for clouds, without guests: what a test scripts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from temporalio import activity
from temporalio.exceptions import ApplicationError

from models.cloud_guests import DropLayers, GuestForecast, GuestPrepared, LayersDropped, LookAtGuest, PrepareGuest
from models.preparing import Change, PrepareReport, Refusal

if TYPE_CHECKING:
    from tests.workflow.fake_site import FakeHost

DRIVERS = Change(rule="drivers", path="update-initramfs", before="virtio_blk", after="nvme ena")
LUKS = Refusal(rule="machine", why="vda2 is encrypted (LUKS)", remedy="Move it by hand.")


class FakeGuests:
    """CloudGuestActivities of one host."""

    def __init__(self, host: FakeHost) -> None:
        self._host = host
        self.changes: tuple[Change, ...] = (DRIVERS,)
        self.refusals: tuple[Refusal, ...] = ()
        self.obstacle = ""
        """Of the host's."""
        self.layers: set[int] = set()
        self.prepares: list[PrepareGuest] = []

    @activity.defn(name="novacron.look_at_guest")
    async def look_at_guest(self, order: LookAtGuest) -> GuestForecast:
        await self._host._enter("look_at_guest")
        if self.obstacle or self._host.vms[order.vm.vm].state != "shutoff":
            return GuestForecast(obstacle=self.obstacle)
        state = "refused" if self.refusals else "to be changed"
        return GuestForecast(report=self._report(order).model_copy(update={"state": state}))

    @activity.defn(name="novacron.prepare_guest")
    async def prepare_guest(self, order: PrepareGuest) -> GuestPrepared:
        await self._host._enter("prepare_guest")
        assert self._host.vms[order.vm.vm].state == "shutoff", "its guest writes"
        self.prepares.append(order)
        if self.refusals:
            raise ApplicationError(self.refusals[0].why, type="Refused", non_retryable=True)
        if not self.changes:
            return GuestPrepared(report=self._report(order).model_copy(update={"state": "ready"}))
        self.layers = {order.attempt}
        return GuestPrepared(report=self._report(order), layer=order.attempt)

    @activity.defn(name="novacron.drop_layers")
    async def drop_layers(self, order: DropLayers) -> LayersDropped:
        await self._host._enter("drop_layers")
        dropped, self.layers = bool(self.layers), set()
        return LayersDropped(dropped=dropped)

    def _report(self, order: LookAtGuest | PrepareGuest) -> PrepareReport:
        return PrepareReport(target=order.target, state="prepared", changes=self.changes, refusals=self.refusals)
