"""A plan on real parts: measured on the lab's guest and link, with nothing left behind; and labels that move along."""

from __future__ import annotations

import asyncio

import pytest

from models.migration import MigrationPolicy
from tests.integration.scene import GUEST, Scene
from workers.lab.proof import left_behind

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]


async def test_a_plan_has_measured_figures_and_leaves_nothing_behind(scene: Scene) -> None:
    here, there = scene.here(), scene.there()
    plan = await scene.nc.plan(GUEST, there)
    assert (plan.ok, plan.source, plan.destination) == (True, here, there), plan.blockers
    link = plan.link.bytes_per_second
    assert link.likely is not None, plan.link.note
    assert 1e6 < link.likely < 100e6 / 8, "the lab's link carries 100 Mbit/s"
    assert plan.link.round_trip > 0
    assert plan.dirtying.bytes_per_second.high, plan.dirtying.note
    assert all(each.converges in ("yes", "maybe") for each in plan.strategies)
    assert not await asyncio.to_thread(left_behind, scene.hosts)
    await scene.proved(on=here)


async def test_a_blocked_plan_names_what_blocks_it(scene: Scene) -> None:
    there = scene.there()
    settings = scene.lab.settings.host(there) / "worker.json"
    original = settings.read_text()
    settings.write_text(original.replace('"memory_reserve_mib": 256', '"memory_reserve_mib": 99999999'))
    try:
        await asyncio.to_thread(scene.lab.restart_worker, there)
        plan = await scene.nc.plan(GUEST, there)
    finally:
        settings.write_text(original)
        await asyncio.to_thread(scene.lab.restart_worker, there)
    assert not plan.ok
    assert [blocker.id for blocker in plan.blockers] == ["room"]


async def test_labels_move_with_their_vm(scene: Scene) -> None:
    there = scene.there()
    await scene.nc.label(GUEST, {"tier": "gold"})
    await scene.end(await scene.start(there, MigrationPolicy()))
    assert {vm.name: vm.labels for _, vm in await scene.nc.vms()} == {GUEST: {"tier": "gold"}}
    assert (await scene.nc.label(GUEST, take=["tier"])).labels == {}
    await scene.proved(on=there)
