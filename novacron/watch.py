"""Live progress of a running move, from outside.

The move step's heartbeat, as in `describe`, is fresher than the workflow's own query (whose reports are sparse, to
keep the history short), so it goes first. What comes out never runs back.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, get_args

from temporalio.client import (
    Client,
    WorkflowExecutionDescription,
    WorkflowExecutionStatus,
    WorkflowHandle,
    WorkflowQueryFailedError,
    WorkflowQueryRejectedError,
)
from temporalio.service import RPCError, RPCStatusCode

from models.migration import Phase, Progress

EVERY = 0.7
PATIENCE = 120.0
"""Seconds Temporal may be away (a restart) before watching gives up. The move does not need us."""
_ASK = timedelta(seconds=3)
_MOVE = "novacron.move_vm"
_ORDER = {phase: place for place, phase in enumerate(get_args(Phase))}
_ORDER["confirming"] = _ORDER["post-copy"]
"""The one way back: hosts are asked where the VM is, and post-copy goes on."""
_ORDER["waiting"] = _ORDER["checking"]
"""For a window: all is checked anew when it opens."""


async def follow(client: Client, handle: WorkflowHandle[Any, Any], every: float = EVERY) -> AsyncIterator[Progress]:
    """Progress about every `every` seconds, until the run has ended."""
    last = Progress()
    loop = asyncio.get_running_loop()
    heard = loop.time()
    while True:
        try:
            description = await handle.describe(rpc_timeout=_ASK)
            if description.status != WorkflowExecutionStatus.RUNNING:
                return
            fresh = await _from_heartbeat(client, description) or await _from_query(handle)
            heard = loop.time()
        except RPCError as error:
            if error.status not in _AWAY or loop.time() - heard > PATIENCE:
                raise
            fresh = None
        if fresh is not None:
            last = _forward(last, fresh)
            yield last
        await asyncio.sleep(every)


_AWAY = (RPCStatusCode.UNAVAILABLE, RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.CANCELLED)


def _forward(last: Progress, fresh: Progress) -> Progress:
    if _ORDER[fresh.phase] < _ORDER[last.phase]:
        return last
    return fresh.model_copy(update={"percent": max(last.percent, fresh.percent)})


async def _from_heartbeat(client: Client, description: WorkflowExecutionDescription) -> Progress | None:
    for pending in description.raw_description.pending_activities:
        if pending.activity_type.name == _MOVE and pending.heartbeat_details.payloads:
            (progress,) = await client.data_converter.decode(pending.heartbeat_details.payloads[:1], [Progress])
            return progress if isinstance(progress, Progress) else None
    return None


async def _from_query(handle: WorkflowHandle[Any, Any]) -> Progress | None:
    """None while no control worker is there to answer: the next round asks again."""
    try:
        answer: Progress = await handle.query("progress", result_type=Progress, rpc_timeout=_ASK)
    except (WorkflowQueryFailedError, WorkflowQueryRejectedError):
        return None
    return answer
