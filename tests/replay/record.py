"""Records the histories that tests/replay replays: python -m tests.replay.record

Run it when a release changes the order of commands on purpose. As long as runs of the old release may be alive, guard
the change with workflow.patched and keep the old files too. Words after it name the only scenarios to record, so that
new ones are added beside the old files. Needs no root; about a minute.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from temporalio.client import WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError
from temporalio.testing import WorkflowEnvironment

from models.disks import DiskImage
from tests.replay import scenarios
from tests.workflow.fake_site import VM, FakeSite, Move, Step, outcome, reached, temporal_binary, vm
from workflows import search_attributes
from workflows.move.migrate_vm import MigrateVm
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


async def post_copy_gone_on_with(site: FakeSite) -> Move:
    """Broken off once, then gone on with over a new data path."""
    halves = vm("paused", job=True, reason=13), vm("running", reason=11)
    site.at(site.source, "move_vm", change=lambda: site.split(*halves), error=_broken(), times=1)
    return await site.start({"vm": VM, "to": "host-b", "policy": {"mode": "post-copy"}})


async def told_to_switch(site: FakeSite) -> Move:
    step = site.at(site.source, "move_vm", hold=True)
    move = await site.start({"vm": VM, "to": "host-b", "policy": {"mode": "hybrid"}})
    await reached(step)
    await move.execute_update("post_copy_now")
    return await _released(move, step)


async def bounded(site: FakeSite) -> Move:
    step = site.at(site.source, "move_vm", hold=True)
    move = await site.start()
    await reached(step)
    await move.execute_update("set_bandwidth", 5)
    return await _released(move, step)


async def disks_copied(site: FakeSite) -> Move:
    site.destination.copies = (_SCRATCH,)
    return await site.start({"vm": VM, "to": "host-b", "policy": {"disks": "copy"}})


async def disks_removed(site: FakeSite) -> Move:
    site.at(site.source, "move_vm", error=_broken())
    return await disks_copied(site)


async def refused(site: FakeSite) -> Move:
    return await site.start({"vm": VM, "to": "host-x"})


SCENARIOS: tuple[Callable[[FakeSite], Awaitable[WorkflowHandle[Any, Any]]], ...] = (
    moved,
    cancelled_in_the_move,
    cancelled_by_temporal,
    cancelled_too_late,
    failed_with_a_leftover,
    failed_yet_arrived,
    two_copies,
    refused,
    post_copy_gone_on_with,
    told_to_switch,
    bounded,
    disks_copied,
    disks_removed,
    *scenarios.SCENARIOS,
)


_SCRATCH = DiskImage(target="vdb", path="/images/scratch.qcow2", format="qcow2", capacity=64 << 20)


async def _released(move: Move, step: Step) -> Move:
    assert step.release is not None
    step.release.set()
    await outcome(move)
    return move


def _broken() -> ApplicationError:
    return ApplicationError("it broke", type="MigrationFailed", non_retryable=True)


async def record(only: Sequence[str]) -> None:
    async with await WorkflowEnvironment.start_time_skipping_v2(
        dev_server_existing_path=temporal_binary(),
        dev_server_startup_timeout=timedelta(seconds=60),
        dev_server_extra_args=["--dynamic-config-value", "frontend.WorkflowTimeSkippingEnabled=true"],
        dev_server_log_level="error",
        search_attributes=search_attributes.ALL,
        plugins=[plugin()],
    ) as environment:
        for scenario in SCENARIOS:
            if only and scenario.__name__ not in only:
                continue
            site = FakeSite(environment.client)
            site.slots = scenarios.LIMITS.get(scenario.__name__)
            async with site.working():
                run = await scenario(site)
                try:
                    async with asyncio.timeout(60):
                        await run.result()
                except WorkflowFailureError as error:
                    print(f"{scenario.__name__}: {error.cause}")
                last = site.client.get_workflow_handle(run.id)
                await _save(scenario.__name__, (await last.fetch_history()).to_json())


async def _save(name: str, history: str) -> None:
    path = HISTORIES / f"{name}.json"
    text = json.dumps(without_the_machine(json.loads(history)), indent=1, sort_keys=True) + "\n"
    await asyncio.to_thread(path.write_text, text)


def without_the_machine(value: Any) -> Any:
    """The same history; replay reads neither stack traces, which hold paths, nor who worked on it."""
    if isinstance(value, dict):
        return {
            name: "recorded" if name == "identity" else without_the_machine(inner)
            for name, inner in value.items()
            if name != "stackTrace"
        }
    return [without_the_machine(inner) for inner in value] if isinstance(value, list) else value


if __name__ == "__main__":
    asyncio.run(record(sys.argv[1:]))
