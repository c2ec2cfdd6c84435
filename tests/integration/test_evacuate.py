"""A host is emptied for real: the proof is libvirt's own, nothing may come in meanwhile, and its guest comes back."""

from __future__ import annotations

import asyncio

import pytest

from models.fleet import EvacuateRequest
from novacron.errors import Refused
from novacron.fleet import Fleet
from tests.integration.scene import GUEST, Scene

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]


async def test_an_evacuated_host_is_drained_closed_and_gets_its_guest_back(scene: Scene) -> None:
    here, there = scene.here(), scene.there()
    maintenance = await Fleet(scene.nc).evacuate(EvacuateRequest(host=here))
    async with asyncio.timeout(120):
        last = [progress async for progress in maintenance.follow()][-1]
    assert last.drained is not None, last
    assert (last.drained.host, last.moved) == (here, 1)
    await scene.proved(on=there)
    with pytest.raises(Refused, match="is in maintenance"):
        await scene.nc.migrate(GUEST, here)
    await maintenance.steer("resume", True)
    async with asyncio.timeout(120):
        assert (await maintenance.result()).brought_back == (GUEST,)
    await scene.proved(on=here)
