"""Measures the link between two hosts over a data path like that of a move, and leaves nothing behind.

Both ends are opened as for a move but carry only test bytes. They are closed whatever happens; what cannot be reached
ends by itself after a minute.
"""

from __future__ import annotations

import asyncio

from temporalio import workflow
from temporalio.exceptions import ActivityError

from models.migration import MigrationPolicy, OpenPath
from models.planning import LinkSpeed
from workflows import errors
from workflows.calls.site import Host
from workflows.lasting import to_the_end


async def probe(source: Host, destination: Host, policy: MigrationPolicy) -> LinkSpeed:
    """Never fails but by a cancel: a link that cannot be measured has a note that says why."""
    migration_id = workflow.uuid4().hex[:16]
    opened: list[Host] = []
    """Hosts on which an end may exist; noted before each is opened."""
    try:
        speed = await _measure(source, destination, policy, migration_id, opened)
    except BaseException as error:
        if not errors.handled(error):
            raise
        await to_the_end(_close(opened, migration_id), on_cancel=lambda: None)
        if errors.cancelled(error) or not isinstance(error, ActivityError):
            raise
        return LinkSpeed(note=errors.explain(error)[1][:4000])
    await to_the_end(_close(opened, migration_id), on_cancel=lambda: None)
    return speed


async def _measure(
    source: Host, destination: Host, policy: MigrationPolicy, migration_id: str, opened: list[Host]
) -> LinkSpeed:
    opened.append(destination)
    order = OpenPath(migration_id=migration_id, peer=source.name, policy=policy, probe=True)
    endpoint = await destination.open_path(order)
    opened.append(source)
    await source.open_path(order.model_copy(update={"peer": destination.name, "endpoint": endpoint}))
    return await source.probe_link(migration_id)


async def _close(opened: list[Host], migration_id: str) -> None:
    await asyncio.gather(*(_close_one(host, migration_id) for host in opened))


async def _close_one(host: Host, migration_id: str) -> None:
    try:
        await host.close_path(migration_id)
    except ActivityError as error:
        workflow.logger.warning(
            "the probe %s on %s ends by itself (%s)", migration_id, host.name, errors.explain(error)[1]
        )
