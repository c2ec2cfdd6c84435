"""One host's worker, asked to finish a switch that nobody finished: queue, deadlines, summaries."""

from __future__ import annotations

from temporalio import workflow
from temporalio.workflow import ActivityConfig

from models import queues
from models.host import VmSighting
from models.migration import HandedOver, VmRef
from workflows.calls import deadlines

with workflow.unsafe.imports_passed_through():
    from activities.switching import SwitchActivities

_call = workflow.execute_activity_method


class SwitchEnd:
    """One end of a switch."""

    def __init__(self, site: str, name: str) -> None:
        self.name = name
        self._queue = queues.host(site, name)

    async def prove_arrival(self, ref: VmRef) -> VmSighting:
        what = f"has {ref.vm} arrived whole, and never run?"
        return await _call(SwitchActivities.prove_arrival, ref, **self._to(deadlines.CONFIRM, what))

    async def prove_departure(self, ref: VmRef) -> VmSighting:
        what = f"did {ref.vm} move away?"
        return await _call(SwitchActivities.prove_departure, ref, **self._to(deadlines.CONFIRM, what))

    async def let_run(self, ref: VmRef) -> VmSighting:
        return await _call(SwitchActivities.let_vm_run, ref, **self._to(deadlines.CONFIRM, f"let {ref.vm} run"))

    async def start_with_host(self, ref: VmRef) -> None:
        what = f"let {ref.vm} start with this host, as with the one it left"
        await _call(SwitchActivities.start_with_host, ref, **self._to(deadlines.DISCARD, what))

    async def remove_handed_over(self, ref: VmRef, defined_there: bool) -> VmSighting:
        what = f"remove what is left of {ref.vm}, which was handed over"
        spent = HandedOver(vm=ref.vm, uuid=ref.uuid, token=ref.token, defined_there=defined_there)
        return await _call(SwitchActivities.remove_handed_over, spent, **self._to(deadlines.DISCARD, what))

    async def take_back(self, ref: VmRef) -> VmSighting:
        what = f"let {ref.vm} run again, which was handed over in vain"
        return await _call(SwitchActivities.take_back, ref, **self._to(deadlines.DISCARD, what))

    def _to(self, deadline: ActivityConfig, what: str) -> ActivityConfig:
        return ActivityConfig(task_queue=self._queue, summary=f"{self.name}: {what}"[:200], **deadline)
