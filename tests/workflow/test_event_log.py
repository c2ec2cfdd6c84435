"""`novacron events`: what was told is read back from Temporal, with nobody there to answer."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from activities.telling import hand_over
from models.events import CloudEvent, EventBatch, Teller
from novacron.commands.events import line
from novacron.events import EventLog, ago
from tests.workflow.fake_site import VM, FakeSite, outcome
from tests.workflow.test_events import delivered

pytestmark = pytest.mark.temporal


async def log(site: FakeSite, wanted: int, vm: str | None = None) -> list[CloudEvent]:
    """Once it has so many: visibility is a moment late."""
    async with asyncio.timeout(20):
        while len(found := await EventLog(site.client, site.name, vm).since(ago(3600))) < wanted:
            await asyncio.sleep(0.1)
    return found


async def test_events_can_be_read_when_no_worker_is_left(site: FakeSite) -> None:
    site.received["chat"] = []
    async with site.working():
        move = await site.start()
        await outcome(move)
        await delivered(site, move)
    assert await log(site, 6) == site.received["chat"] == site.told
    assert await log(site, 6, vm=VM) == site.told
    assert await EventLog(site.client, site.name, "another").since(ago(3600)) == []
    assert await EventLog(site.client, site.name).since(ago(3600), last=2) == site.told[-2:]
    assert await EventLog(site.client, site.name).since(ago(-3600)) == []


async def test_followed_events_come_once_each_and_new_ones_as_they_are_told(site: FakeSite) -> None:
    site.received["chat"] = []
    seen: list[CloudEvent] = []
    async with site.working(), asyncio.timeout(40):
        step = site.at(site.source, "move_vm", hold=True)
        move = await site.start()
        async with aclosing(EventLog(site.client, site.name).follow(ago(60), every=0.1)) as told:
            async for event in told:
                seen.append(event)
                if event.data.get("phase") == "moving" and step.release is not None:
                    step.release.set()
                if event.type == "novacron.move.finished":
                    break
        await outcome(move)
    assert seen == site.told


async def test_handing_over_again_changes_nothing(site: FakeSite) -> None:
    """An activity's answer may be lost after it did its work."""
    site.received["chat"] = []
    async with site.working():
        move = await site.start()
        await outcome(move)
        done = await delivered(site, move)
        teller = Teller(workflow_id=move.id, run_id=move.result_run_id or "")
        last = EventBatch(site=site.name, subject=VM, teller=teller, events=tuple(site.told[-1:]), last=True)
        await hand_over(site.client, last)
        assert await delivered(site, move) == done
    assert len(site.received["chat"]) == 6


async def test_a_line_for_people_has_time_subject_type_and_facts(site: FakeSite) -> None:
    async with site.working():
        await outcome(await site.start())
    text = line(site.told[2])
    assert text.endswith(f" {VM}: move.phase phase=moving percent=0 hosts=host-a,host-b")
