"""Moves share what the site's settings give them. Hosts are told at each change; a lost allocator stops nobody."""

from __future__ import annotations

import asyncio

import pytest

from models import ids
from models.shares import Capacities, HostCapacity, SharesState
from tests.workflow.fake_site import FakeSite, Step, outcome, reached, vm
from workflows.sharing.bandwidth import Bandwidth, in_bytes

pytestmark = pytest.mark.temporal

MIB = 1 << 20


async def told(site: FakeSite, limits: list[int]) -> None:
    async with asyncio.timeout(20):
        while site.source.limits[-len(limits) :] != limits:
            await asyncio.sleep(0.05)


def hold(site: FakeSite) -> Step:
    return site.at(site.source, "move_vm", hold=True)


async def test_a_move_alone_has_all_of_it_and_two_share_it(site: FakeSite) -> None:
    site.bandwidth = Capacities(each_host=HostCapacity(out_mib=100))
    site.source.vms["other"] = vm(name="other")
    step = hold(site)
    async with site.working():
        first = await site.start()
        await reached(step)
        assert site.source.limits == [100 * MIB], "it was told before its memory began to cross"
        second = await site.start({"vm": "other", "to": "host-c"}, id=ids.migrate_vm(site.name, "other"))
        await told(site, [50 * MIB, 50 * MIB])
        allocator = site.client.get_workflow_handle_for(Bandwidth.run, ids.bandwidth(site.name))
        shares = await allocator.query("shares", result_type=SharesState)
        assert [line.why for line in shares.members] == ["its part of the way out of host-a"] * 2
        await first.execute_update("set_bandwidth", 20)
        await told(site, [20 * MIB, 80 * MIB])
        assert step.release is not None
        step.release.set()
        await outcome(first)
        await outcome(second)
        assert (await allocator.query("shares", result_type=SharesState)).members == ()


async def test_where_nothing_is_configured_nobody_asks(site: FakeSite) -> None:
    async with site.working():
        await site.move()
        assert site.source.limits == []
        history = await site.client.get_workflow_handle(site.id).fetch_history()
    assert "novacron.join_shares" not in str(history.events)


async def test_without_its_allocator_a_move_goes_on_and_a_person_can_still_bound_it(site: FakeSite) -> None:
    site.bandwidth = Capacities(each_host=HostCapacity(out_mib=100))
    step = hold(site)
    async with site.working():
        move = await site.start()
        await reached(step)
        await site.client.get_workflow_handle(ids.bandwidth(site.name)).terminate()
        await move.execute_update("set_bandwidth", 10)
        await told(site, [10 * MIB])
        assert step.release is not None
        step.release.set()
        await outcome(move)
    assert site.runs_on() == ["host-b"]


async def test_a_move_that_was_terminated_frees_its_share(site: FakeSite) -> None:
    site.bandwidth = Capacities(each_host=HostCapacity(out_mib=100))
    step = hold(site)
    async with site.working():
        move = await site.start()
        await reached(step)
        await move.terminate()
        allocator = site.client.get_workflow_handle_for(Bandwidth.run, ids.bandwidth(site.name))
        async with asyncio.timeout(30):
            while (await allocator.query("shares", result_type=SharesState)).members:
                await asyncio.sleep(0.05)
        async with asyncio.timeout(30):
            await allocator.result()  # with nobody left to serve it ends


def test_a_share_is_never_rounded_to_no_bound() -> None:
    assert (in_bytes(0.0), in_bytes(1e-9), in_bytes(1.0)) == (0, 1, MIB)
