"""What a move tells: in order, once each, and never in the way of the move. One that nobody takes is a dead letter."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError

from models import ids, queues
from models.events import CloudEvent, Deliveries, EventBatch, HostDrained, Teller
from models.fleet import EvacuateOutcome
from tests.workflow.fake_site import VM, FakeSite, Move, failure, outcome, reached, vm
from workflows.events.deliver_events import DeliverEvents
from workflows.fleet.evacuate_host import EvacuateHost
from workflows.move.migrate_vm import MigrateVm

pytestmark = pytest.mark.temporal

FAILED = ApplicationError("libvirt said no", type="MigrationFailed", non_retryable=True)
Delivering = WorkflowHandle[DeliverEvents, Deliveries]
Evacuation = WorkflowHandle[EvacuateHost, EvacuateOutcome]


def delivery(site: FakeSite, move: Move | Evacuation) -> Delivering:
    run_id = move.result_run_id
    assert run_id
    return site.client.get_workflow_handle_for(DeliverEvents.run, ids.events(move.id, run_id))


async def delivered(site: FakeSite, move: Move | Evacuation) -> Deliveries:
    async with asyncio.timeout(30):
        return await delivery(site, move).result()


def told(events: list[CloudEvent]) -> list[str]:
    """Types without their common beginning; of phases, which."""
    return [
        event.type.removeprefix("novacron.") + (f" {event.data['phase']}" if "phase" in event.data else "")
        for event in events
    ]


async def test_a_webhook_gets_every_event_of_a_move_in_order(site: FakeSite) -> None:
    site.received["chat"] = []
    async with site.working():
        move = await site.start()
        moved = await outcome(move)
        result = await delivered(site, move)
    events = site.received["chat"]
    assert told(events) == [
        "move.started", "move.phase preparing", "move.phase moving", "move.phase confirming", "move.phase cleaning",
        "move.finished",
    ]  # fmt: skip
    assert [int(event.sequence) for event in events] == [1, 2, 3, 4, 5, 6]
    assert {event.source for event in events} == {f"/novacron/{site.name}/{site.id}"}
    assert {event.subject for event in events} == {VM}
    assert events[-1].data["migration_id"] == moved.migration_id
    assert (result.events, result.delivered, result.dead) == (6, {"chat": 6}, ())


async def test_a_webhook_that_is_down_delays_neither_the_move_nor_another_webhook(site: FakeSite) -> None:
    site.received = {"chat": [], "pager": []}
    down = site.webhooks_down["pager"] = asyncio.Event()
    async with site.working():
        move = await site.start()
        await outcome(move)
        async with asyncio.timeout(20):
            await down.wait()
        assert (await delivery(site, move).describe()).status == WorkflowExecutionStatus.RUNNING
        assert site.received["pager"] == []
        del site.webhooks_down["pager"]
        result = await delivered(site, move)
    assert site.received["pager"] == site.received["chat"]
    assert len({event.id for event in site.received["pager"]}) == 6
    assert result.dead == ()


async def test_an_event_that_a_webhook_did_not_take_for_a_day_is_a_dead_letter_with_its_reason(site: FakeSite) -> None:
    site.received = {"chat": [], "pager": []}
    site.webhooks_down["pager"] = asyncio.Event()
    old = CloudEvent.of(
        HostDrained(host="host-a"),
        site=site.name,
        workflow_id="host/x",
        run_id="r",
        sequence=1,
        subject="host-a",
        time=datetime.now(UTC) - timedelta(days=2),
    )
    batch = EventBatch(
        site=site.name, subject="host-a", teller=Teller(workflow_id="host/x", run_id="r"), events=(old,), last=True
    )
    async with site.working():
        delivery_id, queue = ids.events("host/x", site.name), queues.events(site.name)
        result = await site.client.execute_workflow(DeliverEvents.run, batch, id=delivery_id, task_queue=queue)
    (letter,) = result.dead
    assert (letter.webhook, letter.event_id, letter.type) == ("pager", "r-1", "novacron.host.drained")
    assert "webhook pager answered 503" in letter.why
    assert result.delivered == {"chat": 1}


async def test_a_move_that_fails_says_so_with_type_and_place_of_the_vm(site: FakeSite) -> None:
    site.received["chat"] = []
    site.at(site.source, "move_vm", error=FAILED)
    async with site.working():
        move = await site.start()
        error = await failure(move)
        await delivered(site, move)
    last = site.received["chat"][-1]
    assert last.type == "novacron.move.failed"
    assert last.data == {"vm": VM, "error": error.type, "message": error.message}


async def test_a_cancelled_move_is_told_as_cancelled(site: FakeSite) -> None:
    site.received["chat"] = []
    step = site.at(site.source, "move_vm", hold=True)
    async with site.working():
        move = await site.start()
        await reached(step)
        await move.execute_update(MigrateVm.cancel, "maintenance")
        await failure(move)
        await delivered(site, move)
    assert "Cancelled: maintenance" in site.received["chat"][-1].data["message"]
    assert site.received["chat"][-1].type == "novacron.move.cancelled"


async def evacuation(site: FakeSite, **more: object) -> Evacuation:
    site.received["chat"] = []
    return await site.client.start_workflow(
        EvacuateHost.run,
        {"host": "host-a", **more},
        id=ids.evacuate_host(site.name, "host-a"),
        task_queue=site.queue,
    )


async def heard(site: FakeSite, type: str) -> None:
    async with asyncio.timeout(30):
        while type not in [event.type for event in site.received["chat"]]:
            await asyncio.sleep(0.05)


def of_the_host(site: FakeSite) -> list[tuple[str, object, object]]:
    return [
        (event.type.removeprefix("novacron.host."), event.data.get("phase"), event.data["moved"])
        for event in site.received["chat"]
        if event.subject == "host-a"
    ]


async def test_an_evacuation_tells_how_far_it_is_that_the_host_is_drained_and_that_it_takes_vms_again(
    site: FakeSite,
) -> None:
    async with site.working():
        run = await evacuation(site)
        await heard(site, "novacron.host.drained")
        await run.execute_update(EvacuateHost.look_now)
        await run.execute_update(EvacuateHost.resume, False)
        await run.result()
        await delivered(site, run)
    assert of_the_host(site) == [
        ("evacuation", "moving", 0),
        ("evacuation", "moving", 1),
        ("drained", None, 1),
        ("evacuation", "done", 1),
    ]


async def test_an_evacuation_that_is_cancelled_from_outside_says_that_the_host_takes_vms_again(site: FakeSite) -> None:
    async with site.working():
        run = await evacuation(site)
        await heard(site, "novacron.host.drained")
        await run.cancel()
        with pytest.raises(WorkflowFailureError):
            await run.result()
        await delivered(site, run)
    assert of_the_host(site)[-1] == ("evacuation", "cancelled", 1)


async def test_an_evacuation_names_how_many_vms_cannot_move(site: FakeSite) -> None:
    site.source.vms[VM] = vm("paused")
    async with site.working():
        run = await evacuation(site, non_movable="skip")
        await heard(site, "novacron.host.evacuation")
        await run.cancel()
    assert of_the_host(site)[0] == ("evacuation", "incomplete", 0)
    assert site.received["chat"][0].data["skipped"] == 1


async def test_a_plan_of_an_evacuation_tells_nothing(site: FakeSite) -> None:
    async with site.working():
        run = await evacuation(site, dry_run=True)
        await run.result()
    assert site.told == []


async def test_two_copies_are_an_alarm_of_their_own(site: FakeSite) -> None:
    site.received["chat"] = []

    def twice() -> None:
        site.destination.vms[VM] = vm()

    site.at(site.source, "move_vm", change=twice, error=FAILED)
    async with site.working():
        move = await site.start()
        assert (await failure(move)).type == "Ambiguous"
        await delivered(site, move)
    assert told(site.told)[-2:] == ["vm.two-copies", "move.failed"]


async def test_a_changed_bound_is_told(site: FakeSite) -> None:
    site.received["chat"] = []
    step = site.at(site.source, "move_vm", hold=True)
    async with site.working():
        move = await site.start()
        await reached(step)
        await move.execute_update("set_bandwidth", 20)
        assert step.release is not None
        step.release.set()
        await outcome(move)
        await delivered(site, move)
    assert [event.data["change"] for event in site.received["chat"] if event.type == "novacron.move.policy"] == [
        "20 MiB/s on the link"
    ]


async def test_a_run_with_wrong_input_tells_nothing(site: FakeSite) -> None:
    async with site.working():
        await site.failure({"vm": VM})
    assert site.told == []


async def test_the_delivery_of_a_move_that_was_terminated_ends_by_itself(site: FakeSite) -> None:
    site.received["chat"] = []
    step = site.at(site.source, "move_vm", hold=True)
    async with site.working():
        move = await site.start()
        await reached(step)
        await move.terminate()
        site.teller_runs = False
        result = await delivered(site, move)
    assert result.events >= 3
    assert len(site.received["chat"]) == result.events


async def test_a_delivery_that_was_ended_from_outside_is_replaced(site: FakeSite) -> None:
    site.received["chat"] = []
    step = site.at(site.source, "move_vm", hold=True)
    async with site.working():
        move = await site.start()
        await reached(step)
        await delivery(site, move).terminate()
        assert step.release is not None
        step.release.set()
        await outcome(move)
        await delivered(site, move)
    assert told(site.received["chat"])[-1] == "move.finished"
