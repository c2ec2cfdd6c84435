"""Steering on real parts: a deadline that is kept by post-copy or by a pause of the guest, and a pause in which nothing
crosses, kept by whoever comes after a killed worker."""

from __future__ import annotations

import asyncio

import pytest
from temporalio.client import WorkflowFailureError

from models.decisions import Story
from models.migration import MigrationPolicy
from tests.integration.scene import GUEST, Handle, Scene

pytestmark = [pytest.mark.real, pytest.mark.timeout(400)]


async def test_a_guest_that_cannot_cross_in_time_switches_by_its_deadline_and_the_story_says_why(scene: Scene) -> None:
    there = scene.there()
    policy = MigrationPolicy(allow_post_copy=True, codec="none", bandwidth_mib=3, store=False, finish_within=12)
    outcome = await scene.end(await scene.start(there, policy))
    assert outcome.post_copy, "pre-copy came to its end before that: nothing was tested"
    switch = outcome.decisions[-1]
    assert (switch.action, switch.at <= policy.finish_within) == ("post-copy", True)
    assert switch.inputs["bandwidth"] > 0
    story = await scene.nc.migration(GUEST).explain()
    assert story.decisions == outcome.decisions
    assert {"finish_within": True}.items() <= {goal.goal: goal.kept for goal in story.goals}.items()
    await scene.proved(on=there)


async def falls_behind(scene: Scene, to: str, policy: MigrationPolicy) -> Handle:
    """A move whose bandwidth sinks below what the guest writes, once most of its memory is across. It has no page
    memory: deltas of what this guest writes would fit even then."""
    wide = policy.model_copy(
        update={"codec": "none", "store": False, "page_memory_mib": 0, "bandwidth_mib": 12, "finish_within": 60}
    )
    handle = await scene.start(to, wide)
    await scene.middle(handle, percent=92)
    await handle.execute_update("set_bandwidth", 1)
    return handle


async def test_a_guest_that_may_be_paused_is_paused_to_be_across_in_time_and_runs_there(scene: Scene) -> None:
    there = scene.there()
    outcome = await scene.end(await falls_behind(scene, there, MigrationPolicy(allow_pause=True)))
    assert "pause" in [one.action for one in outcome.decisions], "it converged before that: nothing was tested"
    assert not outcome.post_copy
    await scene.proved(on=there)


async def test_a_paused_guest_whose_move_is_cancelled_runs_on_where_it_is(scene: Scene) -> None:
    here = scene.here()
    handle = await falls_behind(scene, scene.there(), MigrationPolicy(allow_pause=True))
    async with asyncio.timeout(90):
        while "pause" not in [one.action for one in (await scene.nc.migration(GUEST).explain()).decisions]:
            await asyncio.sleep(0.2)
    await handle.execute_update("cancel", "it was away too long")
    with pytest.raises(WorkflowFailureError):
        await scene.end(handle)
    await scene.proved(on=here)


async def test_nothing_crosses_a_paused_move_also_after_its_worker_was_killed(scene: Scene) -> None:
    here, there = scene.here(), scene.there()
    handle = await scene.start(there)
    await scene.middle(handle)
    assert "nothing crosses" in str(await handle.execute_update("pause", 120))
    await asyncio.to_thread(scene.lab.kill, f"{here}.worker")
    before = scene.data_path_status(here).wire_out
    await asyncio.to_thread(scene.lab.start, f"{here}.worker")
    crossed = scene.data_path_status(here).wire_out - before
    assert crossed < 1 << 20, f"{crossed} bytes crossed a paused move"
    assert await handle.execute_update("resume") == "the move goes on"
    outcome = await scene.end(handle)
    assert [one.action for one in outcome.decisions if one.action in ("hold", "release")] == ["hold", "release"]
    story: Story = await scene.nc.migration(GUEST).explain()
    assert story.decisions == outcome.decisions
    await scene.proved(on=there)
