"""A move outside its windows waits for the next one, is checked anew then, and can be cancelled or let go meanwhile."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from temporalio.client import WorkflowUpdateFailedError
from temporalio.testing import WorkflowEnvironment

from models.host import Finding
from tests.workflow.fake_site import VM, FakeSite, Move, failure, outcome
from tests.workflow.test_plan_move import never_now
from workflows import search_attributes as sa
from workflows.move.migrate_vm import MigrateVm

pytestmark = pytest.mark.temporal


def later(**policy: Any) -> dict[str, Any]:
    return {"vm": VM, "to": "host-b", "source": "host-a", "policy": {"windows": [never_now()], **policy}}


async def waiting(site: FakeSite, temporal: WorkflowEnvironment) -> Move:
    """A move that waits, on a real clock: nobody skips the days."""
    with temporal.with_time_skipping_disabled():
        move = await site.start(later())
    async with asyncio.timeout(30):
        while (await move.query(MigrateVm.progress)).phase != "waiting":
            await asyncio.sleep(0.05)
    return move


async def test_start_now_ends_the_wait(site: FakeSite, temporal: WorkflowEnvironment) -> None:
    async with site.working():
        move = await waiting(site, temporal)
        progress = await move.query(MigrateVm.progress)
        assert "its next window opens at" in progress.note
        assert "moves now" in await move.execute_update(MigrateVm.start_now)
        await outcome(move)
    assert site.runs_on() == ["host-b"]


async def test_a_move_that_waits_can_be_cancelled(site: FakeSite, temporal: WorkflowEnvironment) -> None:
    async with site.working():
        move = await waiting(site, temporal)
        await move.execute_update(MigrateVm.cancel, "not needed any more")
        error = await failure(move)
    assert error.type == "Cancelled"
    assert site.runs_on() == ["host-a"]


async def test_a_move_waits_for_its_window_and_is_checked_again_when_it_opens(site: FakeSite) -> None:
    async with site.working():
        move = await site.start(later())
        result = await outcome(move)
        description = await move.describe()
    assert site.runs_on() == ["host-b"]
    assert result.seconds > 86400, "days on the workflow's clock"
    assert [entry for entry in site.journal if entry.endswith("admit_vm")] == ["host-b.admit_vm"] * 2
    assert description.typed_search_attributes[sa.PHASE] == "done"


async def test_what_has_changed_while_it_waited_is_found_out(site: FakeSite) -> None:
    full = Finding(id="room", severity="blocker", what="no memory", remedy="Free some.")

    def fill() -> None:
        if site.journal.count("host-b.admit_vm") == 2:
            site.destination.findings = (full,)

    site.at(site.destination, "admit_vm", change=fill)
    async with site.working():
        error = await failure(await site.start(later()))
    assert (error.type, site.runs_on()) == ("Refused", ["host-a"])
    assert "[room] no memory" in error.message


async def test_a_move_without_time_after_the_opening_is_refused_at_once(site: FakeSite) -> None:
    soon = datetime.now(UTC).replace(microsecond=0).timestamp() + 3600
    async with site.working():
        error = await failure(await site.start(later(finish_by=datetime.fromtimestamp(soon, UTC).isoformat())))
    assert error.type == "InvalidInput"
    assert "policy.finish_by" in error.message


async def test_an_unknown_time_zone_is_refused_at_once(site: FakeSite) -> None:
    window = {**never_now(), "zone": "Europe/Berln"}
    async with site.working():
        error = await failure(await site.start({"vm": VM, "to": "host-b", "policy": {"windows": [window]}}))
    assert "'Europe/Berln'" in error.message


async def test_start_now_is_refused_when_nothing_waits(site: FakeSite) -> None:
    step = site.at(site.source, "move_vm", hold=True)
    async with site.working():
        move = await site.start()
        await step.reached.wait()
        with pytest.raises(WorkflowUpdateFailedError) as refused:
            await move.execute_update(MigrateVm.start_now)
        assert "does not wait for a window" in str(refused.value.cause)
        assert step.release is not None
        step.release.set()
        await outcome(move)
