"""Which move the running thread works for, so that every line it logs can say so.

A worker's interceptor sets it for the length of an activity; the SDK copies it into the activity's thread.
"""

from __future__ import annotations

from contextvars import ContextVar

from temporalio import activity, workflow
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from models import ids

Fields = dict[str, str | int]
_order: ContextVar[Fields] = ContextVar("novacron_order")


def current() -> Fields:
    """What is known of the move here: workflow_id, run_id, vm, activity, attempt, migration_id. Empty elsewhere."""
    if activity.in_activity():
        info = activity.info()
        found: Fields = {
            "workflow_id": info.workflow_id or "",
            "run_id": info.workflow_run_id or "",
            "activity": info.activity_type,
            "attempt": info.attempt,
        }
        return _vm(info.workflow_id or "") | found | _order.get({})
    if workflow.in_workflow():
        run = workflow.info()
        return _vm(run.workflow_id) | {"workflow_id": run.workflow_id, "run_id": run.run_id}
    return {}


class ContextInterceptor(Interceptor):
    """For a worker: notes of each order which migration and VM it is about."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        return _Inbound(next)


class _Inbound(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> object:
        token = _order.set(_said(input.args[0]) if input.args else {})
        try:
            return await super().execute_activity(input)
        finally:
            _order.reset(token)


def _said(order: object) -> Fields:
    """By its fields, since every order that belongs to a migration calls them so."""
    vm = getattr(order, "vm", None)
    name = getattr(vm, "vm", None) or getattr(vm, "name", None) or vm
    migration_id = getattr(order, "migration_id", None)
    found = {"vm": name, "migration_id": migration_id}
    return {key: value for key, value in found.items() if isinstance(value, str)}


def _vm(workflow_id: str) -> Fields:
    parsed = ids.parse_migrate_vm(workflow_id)
    return {"vm": parsed[1]} if parsed else {}
