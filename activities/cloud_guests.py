"""Activities on the host that a VM leaves for a cloud: the guest is made ready for its new home, in a layer over its
image (clouds.preparing.layer). The image itself is never written, so the source can be started again at any time.
"""

from __future__ import annotations

from temporalio import activity

from activities import errors
from activities.errors import translated
from activities.on_host import OnHost
from activities.pulse import Pulse
from clouds.errors import BadDisk, MissingPackage
from clouds.kvm import leaving
from clouds.preparing import layer
from clouds.preparing.appliance import check_tools
from clouds.preparing.prepare import prepare
from models import failures
from models.cloud_guests import DropLayers, GuestForecast, GuestPrepared, LayersDropped, LookAtGuest, PrepareGuest
from models.clouds import DiskFormat
from models.disks import DiskImage
from models.migration import VmRef
from models.preparing import PrepareReport, PrepareRequest

FORMATS: dict[str, DiskFormat] = {"raw": "raw", "qcow2": "qcow2"}


class CloudGuestActivities(OnHost):
    @activity.defn(name="novacron.look_at_guest", no_thread_cancel_exception=True)
    @translated
    def look_at_guest(self, order: LookAtGuest) -> GuestForecast:
        """What would have to be changed, and what stands in the way, as far as it can be known before the VM is off."""
        try:
            check_tools()
            if not self._is_off(order.vm):
                return GuestForecast()
            request = PrepareRequest(
                image=order.image.path, format=_format(order.image), target=order.target, dhcp=order.dhcp
            )
            pulse = self._pulse(f"looking at {order.vm.vm}", order.vm)
            with pulse.beating():
                return GuestForecast(report=prepare(request, beat=pulse.beat))
        except (BadDisk, MissingPackage) as error:
            return GuestForecast(obstacle=str(error)[:4000])

    @activity.defn(name="novacron.prepare_guest", no_thread_cancel_exception=True)
    @translated
    def prepare_guest(self, order: PrepareGuest) -> GuestPrepared:
        """A layer with all that has to be changed, whole when it returns. Minutes, without KVM."""
        self._fence.check(order.vm, "prepare it")
        self._must_be_off(order.vm)
        pulse = self._pulse(f"preparing {order.vm.vm}", order.vm)
        with pulse.beating():
            made = layer.make(
                order.image.path, _format(order.image), order.target, order.move, order.attempt, pulse.beat,
                dhcp=order.dhcp,
            )  # fmt: skip
        if made.state == "refused":
            raise errors.final(
                failures.REFUSED, f"{order.vm.vm} cannot be prepared for {order.target}: {refusals(made)}"
            )
        self._must_be_off(order.vm)
        return GuestPrepared(report=made, layer=order.attempt if made.state == "prepared" else 0)

    @activity.defn(name="novacron.drop_layers", no_thread_cancel_exception=True)
    @translated
    def drop_layers(self, order: DropLayers) -> LayersDropped:
        """They are of no more use: the instance has its own disks, or the guest goes on here."""
        self._fence.check(order.vm, "drop what was prepared of it")
        return LayersDropped(dropped=layer.drop(order.image.path))

    def _pulse(self, what: str, vm: VmRef) -> Pulse:
        return Pulse(what, lambda: self._fence.outdated(vm))

    def _is_off(self, vm: VmRef) -> bool:
        with self._session() as session:
            return leaving.is_off(session, vm)

    def _must_be_off(self, vm: VmRef) -> None:
        if not self._is_off(vm):
            raise errors.final(
                failures.AMBIGUOUS, f"{vm.vm} runs on {self._settings.host}, where this move had stopped it"
            )


def refusals(report: PrepareReport) -> str:
    """All of them, with what to do about each."""
    return "; ".join(f"{each.rule}: {each.why}. {each.remedy}" for each in report.refusals)[:3000]


def _format(image: DiskImage) -> DiskFormat:
    if image.format not in FORMATS:
        raise BadDisk(f"{image.path} has format {image.format}", "Only raw and qcow2 images can be prepared.")
    return FORMATS[image.format]
