"""Records the histories that tests/replay replays: python -m tests.replay.record

Run it when a release changes the order of commands on purpose. As long as runs of the old release may be alive, guard
the change with workflow.patched and keep the old files too. Needs no root; about ten seconds.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ApplicationError
from temporalio.testing import WorkflowEnvironment

from tests.workflow.fake_site import VM, FakeSite, Move, outcome, reached, temporal_binary, vm
from workflows import search_attributes
from workflows.inventory import Inventory
from workflows.migrate_vm import MigrateVm
from workflows.plugin import plugin

HISTORIES = Path(__file__).parent / "histories"


async def moved(site: FakeSite) -> Move:
    move = await site.start()
    await outcome(move)
    return move


async def cancelled_in_the_move(site: FakeSite) -> Move:
    step = site.at(site.source, "move_vm", hold=True)
    move = await site.start()
    await reached(step)
    await move.execute_update(MigrateVm.cancel, "recording")
    return move


async def cancelled_by_temporal(site: FakeSite) -> Move:
    step = site.at(site.source, "move_vm", hold=True)
    move = await site.start()
    await reached(step)
    await move.cancel()
    return move


async def cancelled_too_late(site: FakeSite) -> Move:
    site.source.cancel_too_late = True
    return await cancelled_in_the_move(site)


async def failed_with_a_leftover(site: FakeSite) -> Move:
    site.at(site.source, "move_vm", change=lambda: site.destination.vms.update({VM: vm("paused")}), error=_broken())
    return await site.start()


async def failed_yet_arrived(site: FakeSite) -> Move:
    site.at(site.source, "move_vm", change=lambda: site.switch(VM, "host-a", "host-b"), error=_broken())
    return await site.start()


async def two_copies(site: FakeSite) -> Move:
    site.at(site.source, "move_vm", change=lambda: site.destination.vms.update({VM: vm()}), error=_broken())
    return await site.start()


async def refused(site: FakeSite) -> Move:
    return await site.start({"vm": VM, "to": "host-x"})


SCENARIOS: tuple[Callable[[FakeSite], Awaitable[Move]], ...] = (
    moved,
    cancelled_in_the_move,
    cancelled_by_temporal,
    cancelled_too_late,
    failed_with_a_leftover,
    failed_yet_arrived,
    two_copies,
    refused,
)


def _broken() -> ApplicationError:
    return ApplicationError("it broke", type="MigrationFailed", non_retryable=True)


async def record() -> None:
    async with await WorkflowEnvironment.start_time_skipping_v2(
        dev_server_existing_path=temporal_binary(),
        dev_server_startup_timeout=timedelta(seconds=60),
        dev_server_extra_args=["--dynamic-config-value", "frontend.WorkflowTimeSkippingEnabled=true"],
        dev_server_log_level="error",
        search_attributes=search_attributes.ALL,
        plugins=[plugin()],
    ) as environment:
        for scenario in SCENARIOS:
            site = FakeSite(environment.client)
            async with site.working():
                move = await scenario(site)
                try:
                    await outcome(move)
                except WorkflowFailureError as error:
                    print(f"{scenario.__name__}: {error.cause}")
                await _save(scenario.__name__, (await move.fetch_history()).to_json())
        site = FakeSite(environment.client)
        async with site.working():
            listed = await site.client.start_workflow(
                Inventory.run, id=f"inventory/{site.name}/1", task_queue=site.queue
            )
            await listed.result()
            await _save("inventory", (await listed.fetch_history()).to_json())


async def _save(name: str, history: str) -> None:
    path = HISTORIES / f"{name}.json"
    text = json.dumps(without_stack_traces(json.loads(history)), indent=1, sort_keys=True) + "\n"
    await asyncio.to_thread(path.write_text, text)


def without_stack_traces(value: Any) -> Any:
    """The same history; replay reads no stack trace, and they hold paths of the machine that recorded them."""
    if isinstance(value, dict):
        return {name: without_stack_traces(inner) for name, inner in value.items() if name != "stackTrace"}
    return [without_stack_traces(inner) for inner in value] if isinstance(value, list) else value


if __name__ == "__main__":
    asyncio.run(record())
