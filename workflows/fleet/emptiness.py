"""Is the host empty? Only its own answer counts. And the orderly stop of VMs that cannot move, where that is wanted."""

from __future__ import annotations

from collections.abc import Callable

from temporalio import workflow
from temporalio.exceptions import ActivityError, ChildWorkflowError, FailureError

from models.fleet import Drained, StopResult
from workflows import errors
from workflows.calls.fleet import stop_vm
from workflows.calls.site import Host
from workflows.site.survey import alive


async def ask(site: str, host: str) -> tuple[Drained | None, set[str]]:
    """(the proof, VMs with a process): libvirt's own list, from the host. Raises ActivityError."""
    report = await Host(site, host).describe()
    left = {vm.name for vm in alive(report.vms)}
    if left:
        return None, left
    defined = tuple(vm.name for vm in report.vms)
    version = report.libvirt_version
    return Drained(host=host, asked_at=workflow.now(), libvirt_version=version, defined=defined), left


async def stop(site: str, host: str, vm: str, within: float, note: Callable[[str], None]) -> bool:
    """Shut one VM down in order; True when it is. What stands in the way becomes a note."""
    try:
        result = await stop_vm(site, host, vm, within)
    except ActivityError as error:
        if errors.cancelled(error):
            raise
        result = StopResult(stopped=False, why=f"{vm} was not shut down: {errors.explain(error)[1]}")
    note(f"{vm} could not move and was shut down; it is defined on {host}" if result.stopped else result.why)
    return result.stopped


def why(error: ActivityError | ChildWorkflowError) -> str:
    """Why a question had no answer, also when a child workflow asked it."""
    cause = error.cause if isinstance(error, ChildWorkflowError) and isinstance(error.cause, FailureError) else error
    return errors.explain(cause)[1]
