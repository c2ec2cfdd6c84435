"""What a fake host does besides moving VMs: stop them, recover them, be steered, finish a switch. Each class stands for
the activities of that name, over the host's own dictionaries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from temporalio import activity
from temporalio.exceptions import ApplicationError

from models.fleet import StopResult, StopVm
from models.host import VmSighting
from models.migration import HandedOver, VmRef
from models.recovery import FindMarks, MarksReport, PathSeen, PathsReport, Welcome, Welcomed
from models.steering import Steered, SteerMove

if TYPE_CHECKING:
    from tests.workflow.fake_site import FakeHost


class FakeFleetHost:
    """FleetHostActivities of one host."""

    def __init__(self, host: FakeHost) -> None:
        self._host = host

    @activity.defn(name="novacron.stop_vm")
    async def stop_vm(self, order: StopVm) -> StopResult:
        await self._host._enter("stop_vm")
        stopped = self._host.vms[order.vm]
        self._host.vms[order.vm] = stopped.model_copy(update={"state": "shutoff"})
        return StopResult(stopped=True)


class FakeSurvivor:
    """RecoveryActivities of one host."""

    def __init__(self, host: FakeHost) -> None:
        self._host = host

    @activity.defn(name="novacron.fence_vm")
    async def fence_vm(self, vm: VmRef) -> VmSighting:
        await self._host._enter("fence_vm")
        self._host.take_note(vm)
        found = self._host.vms.get(vm.vm)
        return VmSighting(host=self._host.name, present=found is not None, vm=found, token=self._host.tokens[vm.vm])

    @activity.defn(name="novacron.list_paths")
    async def list_paths(self) -> PathsReport:
        await self._host._enter("list_paths")
        paths = [
            PathSeen(migration_id=each.migration_id, role="source", vm=each.vm.uuid if each.vm else None)
            for each in self._host.paths.values()
        ]
        return PathsReport(paths=tuple(paths))

    @activity.defn(name="novacron.abort_job")
    async def abort_job(self, vm: VmRef) -> VmSighting:
        await self._host._enter("abort_job")
        self._host.vms[vm.vm] = self._host.vms[vm.vm].model_copy(update={"job": False})
        return VmSighting(host=self._host.name, present=True, vm=self._host.vms[vm.vm])

    @activity.defn(name="novacron.find_marks")
    async def find_marks(self, wanted: FindMarks) -> MarksReport:
        await self._host._enter("find_marks")
        paths = {image.path for image in wanted.disks}
        return MarksReport(marks={path: made for path, made in self._host.marks.items() if path in paths})

    @activity.defn(name="novacron.welcome_host")
    async def welcome_host(self, order: Welcome) -> Welcomed:
        await self._host._enter("welcome_host")
        self._host.reconciled = True
        return Welcomed(floor=order.floor)


class FakeSteering:
    """SteeringActivities of one host."""

    def __init__(self, host: FakeHost) -> None:
        self._host = host

    @activity.defn(name="novacron.steer_move")
    async def steer_move(self, order: SteerMove) -> Steered:
        await self._host._enter("steer_move")
        self._host.wishes.append(order)
        return Steered(number=order.number, answer="done", refused=self._host.refuses_wishes)

    @activity.defn(name="novacron.revive_vm")
    async def revive_vm(self, ref: VmRef) -> VmSighting:
        await self._host._enter("revive_vm")
        return VmSighting(host=self._host.name, present=True, vm=self._host.vms[ref.vm])


class FakeSwitch:
    """SwitchActivities of one host. What libvirt and QEMU would prove is told by the host's `proves`."""

    def __init__(self, host: FakeHost) -> None:
        self._host = host

    @activity.defn(name="novacron.prove_arrival")
    async def prove_arrival(self, vm: VmRef) -> VmSighting:
        await self._host._enter("prove_arrival")
        self._refuse_unless("arrived", vm)
        return self._seen(vm)

    @activity.defn(name="novacron.prove_departure")
    async def prove_departure(self, vm: VmRef) -> VmSighting:
        await self._host._enter("prove_departure")
        self._refuse_unless("left", vm)
        return self._seen(vm)

    @activity.defn(name="novacron.let_vm_run")
    async def let_vm_run(self, vm: VmRef) -> VmSighting:
        await self._host._enter("let_vm_run")
        self._refuse_unless("arrived", vm)
        self._host.take_note(vm)
        self._host.vms[vm.vm] = self._host.vms[vm.vm].model_copy(update={"state": "running", "reason": 5})
        return self._seen(vm)

    @activity.defn(name="novacron.start_with_host")
    async def start_with_host(self, vm: VmRef) -> None:
        await self._host._enter("start_with_host")
        self._host.take_note(vm)
        self._host.vms[vm.vm] = self._host.vms[vm.vm].model_copy(update={"autostart": True})

    @activity.defn(name="novacron.remove_handed_over")
    async def remove_handed_over(self, vm: HandedOver) -> VmSighting:
        await self._host._enter("remove_handed_over")
        self._refuse_unless("handed over", vm)
        self._host.take_note(vm)
        gone = self._host.vms.pop(vm.vm, None)
        if gone and gone.persistent and not vm.defined_there:
            self._host.vms[vm.vm] = gone.model_copy(update={"state": "shutoff", "reason": 0})
        self._host.proves.add("left")
        return self._seen(vm)

    @activity.defn(name="novacron.take_back")
    async def take_back(self, vm: VmRef) -> VmSighting:
        await self._host._enter("take_back")
        self._refuse_unless("handed over", vm)
        self._host.vms[vm.vm] = self._host.vms[vm.vm].model_copy(update={"state": "running", "reason": 5})
        return self._seen(vm)

    def _refuse_unless(self, proof: str, vm: VmRef) -> None:
        if proof not in self._host.proves:
            raise ApplicationError(
                f"{self._host.name} cannot prove that {vm.vm} {proof}", type="Refused", non_retryable=True
            )

    def _seen(self, vm: VmRef) -> VmSighting:
        found = self._host.vms.get(vm.vm)
        return VmSighting(host=self._host.name, present=found is not None, vm=found)
