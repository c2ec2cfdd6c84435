"""Steering on real parts: a deadline that is kept by post-copy, and a pause in which nothing crosses, kept by whoever
comes after a killed worker."""

from __future__ import annotations

import asyncio

import pytest

from models.decisions import Story
from models.migration import MigrationPolicy
from tests.integration.scene import GUEST, Scene

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
