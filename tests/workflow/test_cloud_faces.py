"""Clouds through the Python client, against a real Temporal and a fake cloud."""

from __future__ import annotations

import asyncio

import pytest
from temporalio.testing import WorkflowEnvironment

from models.cloud_bring import CloudBringRequest
from models.cloud_move import CloudMoveRequest
from novacron import AlreadyMoving, NovaCron
from novacron.clouds import Clouds
from novacron.errors import NotFound, Refused
from tests.workflow.fake_bring import INSTANCE
from tests.workflow.fake_cloud import PLACE
from tests.workflow.fake_site import VM, FakeSite, vm

pytestmark = pytest.mark.temporal

WANTED = CloudMoveRequest(vm=VM, to=PLACE, size="t3.micro")


def clouds(site: FakeSite) -> Clouds:
    return Clouds(NovaCron(site.client, site.name))


async def test_what_there_is_and_what_it_would_cost_is_told_without_touching_anything(site: FakeSite) -> None:
    async with site.working():
        assert [each.place for each in (await clouds(site).list()).places] == [PLACE]
        sizes = (await clouds(site).list(PLACE)).sizes
        assert sizes is not None
        plan = await clouds(site).plan(WANTED)
        with pytest.raises(Refused, match="no cloud account"):
            await clouds(site).list("aws:us-east-1")
    assert (plan.ok, plan.warm, plan.source) == (True, True, "host-a")
    assert site.source.cloud.sends == []


async def test_a_move_is_followed_until_it_rests_and_steered_by_its_vm(site: FakeSite) -> None:
    step = site.at(site.source, "send_disk", hold=True, times=1)
    async with site.working():
        move = await clouds(site).move(WANTED.model_copy(update={"cut_over": "now", "keep_source_for": 0}))
        async with asyncio.timeout(20):
            await step.reached.wait()
        assert (await clouds(site).at(VM).standing()).stage == "copying"
        with pytest.raises(AlreadyMoving):
            await clouds(site).move(WANTED)
        with pytest.raises(Refused, match="only a kept source"):
            await clouds(site).at(VM).roll_back()
        assert step.release
        step.release.set()
        stages = [seen.stage async for seen in move.follow(every=0.05)]
        outcome = await move.result()
    assert stages[-1] in ("kept", "done")
    assert site.cloud.running() == [outcome.instance]


async def test_following_ends_where_people_have_to_say_how_to_go_on(site: FakeSite) -> None:
    site.cloud.well = False
    async with site.working():
        move = await clouds(site).move(WANTED)
        async with asyncio.timeout(40):
            seen = [each async for each in move.follow(every=0.05)][-1]
        assert "was undone" in seen.why
        assert "runs at its source" in await move.cancel("enough")
        with pytest.raises(Exception, match="enough"):
            await move.result()


async def test_a_move_that_never_was_is_not_found(site: FakeSite) -> None:
    async with site.working():
        with pytest.raises(NotFound):
            await clouds(site).at("nobody").cut_over_now()


async def test_a_vm_is_brought_home_and_steered_by_its_name_alone(
    site: FakeSite, temporal: WorkflowEnvironment
) -> None:
    site.source.vms[VM] = vm("shutoff")
    site.cloud.instances[INSTANCE] = ("a-token-of-then", "running", 7)
    wish = CloudBringRequest(vm=VM, source=PLACE, to="host-b")
    async with site.working():
        plan = await clouds(site).plan_bringing(wish)
        assert (plan.ok, plan.warm, plan.instance) == (True, True, INSTANCE)
        with temporal.with_time_skipping_disabled():
            move = await clouds(site).bring(wish)
        async with asyncio.timeout(40):
            seen = [each async for each in move.follow(every=0.05)][-1]
        assert (seen.stage, seen.runs_on, seen.instance) == ("kept", "host-b", INSTANCE)
        assert "stopped on its host" in await clouds(site).at(VM).roll_back("slow")
        assert (await move.result()).rolled_back
    assert site.cloud.two_copies == []
