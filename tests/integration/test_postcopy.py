"""Post-copy on real parts: the guest runs on at the destination while the rest of its memory follows, whatever breaks.

`scene.proved` hears the guest walk through its whole memory afterwards: no page may be missing, stale or elsewhere.
"""

from __future__ import annotations

import asyncio

import pytest
from temporalio.client import WorkflowUpdateFailedError

from models.migration import MigrationPolicy, Progress
from novacron import watch
from tests.integration.scene import Handle, Scene

pytestmark = [pytest.mark.real, pytest.mark.timeout(400)]

SLOW = MigrationPolicy(mode="hybrid", codec="none", bandwidth_mib=6, store=False)
"""Leaves time to meet both the pre-copy and the post-copy of this guest."""


async def in_post_copy(scene: Scene, handle: Handle, within: float = 90) -> Progress:
    """Let the VM switch in mid move; return once its post-copy is seen."""
    await scene.middle(handle, percent=5)
    assert "follows" in str(await handle.execute_update("post_copy_now"))
    async with asyncio.timeout(within):
        async for progress in watch.follow(scene.nc.client, handle, every=0.2):
            if progress.phase == "post-copy":
                return progress
    raise AssertionError("post-copy was never seen")


async def test_a_vm_moves_in_post_copy_after_one_pass(scene: Scene) -> None:
    there = scene.there()
    outcome = await scene.end(
        await scene.start(there, MigrationPolicy(mode="post-copy", bandwidth_mib=16, store=False))
    )
    assert outcome.post_copy
    assert outcome.digest_verified
    assert not outcome.notes
    assert outcome.recoveries == 0
    await scene.proved(on=there)


async def test_a_hybrid_move_that_cannot_be_across_in_time_switches_before_its_deadline_which_then_ends_nothing(
    scene: Scene,
) -> None:
    """The link is narrow for the time given: a busy machine has most of that time for the few readings it takes."""
    there = scene.there()
    policy = SLOW.model_copy(update={"bandwidth_mib": 3, "finish_within": 24})
    outcome = await scene.end(await scene.start(there, policy))
    (switch,) = [decision for decision in outcome.decisions if decision.action == "post-copy"]
    assert switch.at < policy.finish_within
    assert "deadline" in switch.reason or "half of the time" in switch.reason
    assert outcome.post_copy
    assert outcome.seconds > policy.finish_within, "it ended in time: that its deadline ended nothing was not tested"
    assert outcome.digest_verified
    await scene.proved(on=there)


async def test_a_vm_told_to_switch_runs_there_while_its_memory_follows(scene: Scene) -> None:
    there = scene.there()
    handle = await scene.start(there, SLOW)
    progress = await in_post_copy(scene, handle)
    assert f"runs on {there}" in progress.note
    assert progress.memory_remaining > 0
    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await handle.execute_update("cancel", "too late")
    assert "already" in str(refused.value.cause)
    outcome = await scene.end(handle)
    assert outcome.post_copy
    assert outcome.digest_verified
    await scene.proved(on=there)


async def test_a_cancel_by_temporal_in_post_copy_means_finish(scene: Scene) -> None:
    there = scene.there()
    handle = await scene.start(there, SLOW)
    await in_post_copy(scene, handle)
    await handle.cancel()
    outcome = await scene.end(handle)
    assert "a cancel came after the point of no return: the move was finished" in outcome.notes
    await scene.proved(on=there)


async def test_a_link_cut_for_ten_seconds_in_post_copy_is_healed_by_the_data_path(scene: Scene) -> None:
    there = scene.there()
    handle = await scene.start(there, SLOW)
    await in_post_copy(scene, handle)
    scene.lab.cut()
    await asyncio.sleep(10)  # the case itself: ten seconds without a link
    scene.lab.heal()
    outcome = await scene.end(handle)
    assert outcome.redials > 0, "the cut was not noticed: nothing was tested"
    assert (outcome.recoveries, outcome.digest_verified) == (0, True)
    await scene.proved(on=there)


@pytest.mark.parametrize("end", ["source", "destination"])
async def test_a_data_path_killed_in_post_copy_is_opened_anew_and_the_vm_comes_together(scene: Scene, end: str) -> None:
    here, there = scene.here(), scene.there()
    handle = await scene.start(there, SLOW)
    await in_post_copy(scene, handle)
    await scene.beats()
    scene.kill_data_path(here if end == "source" else there)
    outcome = await scene.end(handle, within=300)
    assert outcome.recoveries >= 1
    assert outcome.post_copy
    assert any("broke off" in note for note in outcome.notes)
    await scene.proved(on=there)


async def test_a_source_worker_killed_in_post_copy_finds_its_move_again(scene: Scene) -> None:
    here, there = scene.here(), scene.there()
    handle = await scene.start(there, SLOW)
    await in_post_copy(scene, handle)
    await asyncio.to_thread(scene.lab.kill, f"{here}.worker")
    await asyncio.to_thread(scene.lab.start, f"{here}.worker")
    outcome = await scene.end(handle)
    assert (outcome.recoveries, outcome.digest_verified) == (0, True)
    await scene.proved(on=there)


async def test_the_bound_on_the_link_holds_while_the_move_runs(scene: Scene) -> None:
    here, there = scene.here(), scene.there()
    handle = await scene.start(there)
    await scene.middle(handle)
    assert "from now on" in str(await handle.execute_update("set_bandwidth", 1))
    assert scene.data_path_status(here).rate_limit == 1 << 20
    assert "no bound" in str(await handle.execute_update("set_bandwidth", 0))
    await scene.end(handle)
    await scene.proved(on=there)


@pytest.mark.parametrize("end", ["source", "destination"])
async def test_a_libvirtd_killed_in_post_copy_costs_neither_move_nor_vm(scene: Scene, end: str) -> None:
    here, there = scene.here(), scene.there()
    handle = await scene.start(there, SLOW)
    await in_post_copy(scene, handle)
    libvirtd = f"{here if end == 'source' else there}.libvirtd"
    await asyncio.to_thread(scene.lab.kill, libvirtd)
    await asyncio.to_thread(scene.lab.start, libvirtd)
    outcome = await scene.end(handle, within=300)
    assert outcome.destination == there
    await scene.proved(on=there)
