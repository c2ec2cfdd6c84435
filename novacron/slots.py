"""The site's slots through the Python client: which moves have theirs, who waits for what, and behind whom.

async with NovaCron.connect() as nova:
    state = await slots(nova)
"""

from __future__ import annotations

from datetime import timedelta

from temporalio.client import WorkflowExecutionStatus, WorkflowQueryFailedError, WorkflowQueryRejectedError
from temporalio.service import RPCError, RPCStatusCode

from models import ids
from models.slots import SlotsState
from novacron import errors
from novacron.client import NovaCron, our_errors

_ASK = timedelta(seconds=10)


async def slots(nova: NovaCron) -> SlotsState:
    """As their keeper has it; empty where none runs: then no move waits, or the site has no limits."""
    handle = nova.client.get_workflow_handle(ids.slots(nova.site))
    with our_errors(handle.id):
        try:
            if (await handle.describe(rpc_timeout=_ASK)).status != WorkflowExecutionStatus.RUNNING:
                return SlotsState()
            state: SlotsState = await handle.query("slots", result_type=SlotsState, rpc_timeout=_ASK)
            return state
        except (WorkflowQueryFailedError, WorkflowQueryRejectedError) as error:
            raise errors.Unreachable(
                f"{handle.id}: no control worker could tell: {error}", "Is the control worker running? Ask again."
            ) from error
        except RPCError as error:
            if error.status == RPCStatusCode.NOT_FOUND:
                return SlotsState()
            raise
