"""Activities that finish a switch nobody finished: the VM stands whole at its destination, or its source still holds
what it handed over. Each proves on its own host, by libvirt and QEMU, what the caller cannot see from afar."""

from __future__ import annotations

from pathlib import Path

from temporalio import activity

from activities.errors import translated
from activities.on_host import OnHost
from clouds.kvm import arrival, handover, leftover, parting
from clouds.kvm.errors import Refused
from models.host import HostSettings, VmSighting
from models.migration import HandedOver, MoveVm, VmRef, may_switch


class SwitchActivities(OnHost):
    @activity.defn(name="novacron.prove_arrival", no_thread_cancel_exception=True)
    @translated
    def prove_arrival(self, vm: VmRef) -> VmSighting:
        """Refuses, unless the VM is here whole, waits to be let run, and never ran here."""
        with self._session() as session:
            arrival.prove(session, vm)
        return self._sighting(vm)

    @activity.defn(name="novacron.prove_departure", no_thread_cancel_exception=True)
    @translated
    def prove_departure(self, vm: VmRef) -> VmSighting:
        """Refuses, unless no QEMU of the VM is here and the last one ended by moving away."""
        seen = self._sighting(vm)
        if seen.vm is not None and seen.vm.state not in ("shutoff", "crashed"):
            raise Refused(f"VM {vm.vm} is still on this host, {seen.vm.state}", "Look again when it has left.")
        if why_not := parting.why_not_left(vm.vm, _removed(self._settings, vm)):
            raise Refused(
                f"whether VM {vm.vm} moved away from this host is not known: {why_not}",
                "If it did not run on here after its move, let it run where it stands with `virsh resume`.",
            )
        return seen

    @activity.defn(name="novacron.let_vm_run", no_thread_cancel_exception=True)
    @translated
    def let_vm_run(self, vm: VmRef) -> VmSighting:
        """Run on the destination, once the source is proved to have it no more."""
        self._fence.check(vm, "let the VM run")
        with self._session() as session:
            arrival.let_run(session, vm)
        return self._sighting(vm)

    @activity.defn(name="novacron.start_with_host", no_thread_cancel_exception=True)
    @translated
    def start_with_host(self, vm: VmRef) -> None:
        """Run on the destination of a VM that its source started when it booted."""
        self._fence.check(vm, "let the VM start with this host")
        with self._session() as session:
            arrival.start_with_host(session, vm)

    @activity.defn(name="novacron.remove_handed_over", no_thread_cancel_exception=True)
    @translated
    def remove_handed_over(self, vm: HandedOver) -> VmSighting:
        """Run on the source, when the VM runs, or was proved to stand whole, at its destination."""
        self._fence.check(vm, "remove what was handed over")
        with self._session() as session:
            handover.remove_handed_over(session, vm, lambda: parting.remember(vm.vm, _removed(self._settings, vm)))
            if vm.defined_there:
                leftover.undefine(session, vm)
        return self._sighting(vm)

    @activity.defn(name="novacron.take_back", no_thread_cancel_exception=True)
    @translated
    def take_back(self, vm: VmRef) -> VmSighting:
        """Run on the source, when no other host has the VM: let a guest run again that was handed over in vain."""
        self._fence.check(vm, "take the VM back")
        with self._session() as session:
            handover.take_back(session, vm, parting.remembered(vm.vm, _ends_paused(self._settings, vm)))
        return self._sighting(vm)


def remember_how_it_ends(settings: HostSettings, order: MoveVm) -> None:
    """On disk before libvirt is called: whether this move leaves the VM paused at its destination until this end of it
    is gone. Only then can the source be sure that nobody ran what it handed over."""
    note = _ends_paused(settings, order.vm)
    if may_switch(order.policy) or order.resume:
        note.unlink(missing_ok=True)
    else:
        parting.remember(order.vm.vm, note)


def _removed(settings: HostSettings, vm: VmRef) -> Path:
    return Path(settings.state_dir) / "handed-over" / f"{vm.uuid or vm.vm}.removed"


def _ends_paused(settings: HostSettings, vm: VmRef) -> Path:
    return Path(settings.state_dir) / "handed-over" / f"{vm.uuid or vm.vm}.ends-paused"
