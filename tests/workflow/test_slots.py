"""The site's limits hold for all moves together, whoever started them; who waits says for what, and can always stop."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from temporalio.client import WorkflowHandle, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode
from temporalio.testing import WorkflowEnvironment

from activities.slots import SlotActivities
from models import ids
from models.migration import Progress
from models.slots import GiveBack, HostSlots, SlotLimits, SlotLine, SlotsState, SlotWish
from novacron import NovaCron
from novacron.slots import slots
from tests.workflow.fake_site import VM, FakeSite, Move, Step, failure, outcome, reached, vm
from workflows.fleet.move_many import MoveMany
from workflows.move.migrate_vm import MigrateVm
from workflows.sharing.site_slots import SiteSlots

pytestmark = pytest.mark.temporal

ONE_INTO_EACH = SlotLimits(each_host=HostSlots(into=1))


def hold(site: FakeSite) -> Step:
    return site.at(site.source, "move_vm", hold=True)


def let_go(step: Step) -> None:
    assert step.release is not None
    step.release.set()


async def start(site: FakeSite, name: str, to: str = "host-b", **policy: object) -> Move:
    labels = {"tenant": str(policy.pop("tenant"))} if "tenant" in policy else {}
    site.source.vms[name] = vm(name=name, labels=labels)
    return await site.start(
        {"vm": name, "to": to, "source": "host-a", "policy": policy}, id=ids.migrate_vm(site.name, name)
    )


def keeper(site: FakeSite) -> WorkflowHandle[SiteSlots, None]:
    return site.client.get_workflow_handle_for(SiteSlots.run, ids.slots(site.name))


async def lines(site: FakeSite) -> dict[str, bool]:
    """VM -> whether it has its slots, as the keeper has it; nothing where there is none."""
    try:
        state = await keeper(site).query(SiteSlots.slots)
    except RPCError as error:
        if error.status != RPCStatusCode.NOT_FOUND:
            raise
        return {}
    return {line.wish.workflow_id.rpartition("/")[2]: line.held for line in state.lines}


async def until_lines(site: FakeSite, wanted: dict[str, bool]) -> None:
    async with asyncio.timeout(30):
        while await lines(site) != wanted:
            await asyncio.sleep(0.05)


async def waiting(move: Move, note: str = "") -> Progress:
    async with asyncio.timeout(30):
        while (seen := await move.query(MigrateVm.progress)).phase != "waiting" or note not in seen.note:
            await asyncio.sleep(0.05)
    return seen


@pytest.fixture
def real_time(temporal: WorkflowEnvironment) -> Iterator[None]:
    """Nobody skips the time that moves have to wait."""
    with temporal.with_time_skipping_disabled():
        yield


async def test_where_nothing_is_configured_nobody_asks(site: FakeSite) -> None:
    async with site.working():
        await site.move()
        history = await site.client.get_workflow_handle(site.id).fetch_history()
    assert "slot" not in str([event.activity_task_scheduled_event_attributes for event in history.events])


async def test_a_move_alone_takes_its_slot_and_gives_it_back(site: FakeSite) -> None:
    site.slots = ONE_INTO_EACH
    step = hold(site)
    async with site.working():
        nova = NovaCron(site.client, site.name)
        assert (await slots(nova)).lines == ()
        move = await site.start()
        await reached(step)
        assert await lines(site) == {VM: True}
        (line,) = (await slots(nova)).lines
        assert (line.wish.source, line.wish.to, line.held) == ("host-a", "host-b", True)
        let_go(step)
        result = await outcome(move)
        assert await lines(site) == {}
        async with asyncio.timeout(30):
            await keeper(site).result()  # with nobody left to serve it ends
        assert (await slots(nova)).lines == ()
    assert "waiting" not in [mark.phase for mark in result.marks]


@pytest.mark.usefixtures("real_time")
async def test_two_operations_together_never_exceed_a_hosts_limit(site: FakeSite) -> None:
    site.slots = SlotLimits(each_host=HostSlots(into=2))
    groups = {f"group-{number}": [f"vm-{number}-{each}" for each in range(4)] for number in range(2)}
    site.source.vms = {name: vm(name=name) for names in groups.values() for name in names}
    seen: list[int] = []
    step = hold(site)
    step.change = lambda: seen.append(len(site.destination.paths))
    async with site.working():
        operations = [
            await site.client.start_workflow(
                MoveMany.run,
                {"vms": names, "to": "host-b", "slots": {"out": 4, "into": 4, "link": 4}},
                id=ids.move_many(site.name, group),
                task_queue=site.queue,
            )
            for group, names in groups.items()
        ]
        async with asyncio.timeout(60):
            while list((await lines(site)).values()).count(False) < 6 or len(seen) < 2:
                await asyncio.sleep(0.05)
        let_go(step)
        async with asyncio.timeout(60):
            ends = [await operation.result() for operation in operations]
        assert await lines(site) == {}
    assert [end.moved for end in ends] == [4, 4]
    assert len(seen) == 8
    assert max(seen) == 2, "each wanted four at once; both wanted eight"


@pytest.mark.usefixtures("real_time")
async def test_a_move_that_waits_says_for_what_and_the_higher_priority_goes_first(site: FakeSite) -> None:
    site.slots = ONE_INTO_EACH
    step = hold(site)
    async with site.working():
        first = await start(site, "first")
        await reached(step)
        low = await start(site, "low", priority=5)
        assert (await waiting(low)).note == "waits for a slot: 1 of 1 moves into host-b; it is the next"
        high = await start(site, "high", priority=1)
        await waiting(high)
        elsewhere = await start(site, "elsewhere", to="host-c")
        await until_lines(site, {"first": True, "low": False, "high": False, "elsewhere": True})
        details = str(await keeper(site).query("__temporal_workflow_metadata"))
        assert "2 moves, 2 wait" in details
        assert "1 before it, the first is high" in details
        let_go(step)
        for move in (first, low, high, elsewhere):
            await outcome(move)
    order = [order.vm.vm for order in site.source.moves]
    assert order.index("high") < order.index("low")
    checked = [entry for entry in site.journal if entry == "host-b.admit_vm"]
    assert len(checked) == 5, "who has waited is checked anew"


async def test_moves_of_an_operation_carry_its_priority_and_their_tenant_into_temporals_own_queues(
    site: FakeSite,
) -> None:
    site.source.vms = {"web": vm(name="web", labels={"tenant": "red"})}
    async with site.working():
        wish = {"vms": ["web"], "to": "host-b", "policy": {"priority": 2}}
        run = await site.client.start_workflow(
            MoveMany.run, wish, id=ids.move_many(site.name, "one"), task_queue=site.queue
        )
        assert (await run.result()).moved == 1
        history = await site.client.get_workflow_handle(ids.migrate_vm(site.name, "web")).fetch_history()
    begun = history.events[0].workflow_execution_started_event_attributes.priority
    assert (begun.priority_key, begun.fairness_key) == (2, "red")


@pytest.mark.usefixtures("real_time")
async def test_a_tenant_has_its_own_bound(site: FakeSite) -> None:
    site.slots = SlotLimits(each_tenant=1)
    step = hold(site)
    async with site.working():
        red = await start(site, "red-1", tenant="red")
        await reached(step)
        late = await start(site, "red-2", tenant="red")
        assert "1 of 1 moves of tenant red" in (await waiting(late)).note
        blue = await start(site, "blue", tenant="blue")
        await until_lines(site, {"red-1": True, "red-2": False, "blue": True})
        let_go(step)
        for move in (red, late, blue):
            await outcome(move)


@pytest.mark.usefixtures("real_time")
@pytest.mark.parametrize("by_temporal", [False, True])
async def test_a_move_that_waits_can_be_cancelled_and_leaves_the_line(site: FakeSite, by_temporal: bool) -> None:
    site.slots = ONE_INTO_EACH
    step = hold(site)
    async with site.working():
        first = await start(site, "first")
        await reached(step)
        second = await start(site, "second")
        await waiting(second)
        if by_temporal:
            await second.cancel()
            await until_lines(site, {"first": True})
            assert (await second.query(MigrateVm.progress)).phase == "cancelled"
        else:
            await second.execute_update(MigrateVm.cancel, "not needed any more")
            error = await failure(second)
            assert (error.type, "second was not touched" in error.message) == ("Cancelled", True)
            assert await lines(site) == {"first": True}
        let_go(step)
        await outcome(first)
    assert "second" in site.source.vms


@pytest.mark.usefixtures("real_time")
async def test_a_wait_for_a_slot_is_not_cut_short_by_start_now(site: FakeSite) -> None:
    site.slots = ONE_INTO_EACH
    step = hold(site)
    async with site.working():
        first = await start(site, "first")
        await reached(step)
        second = await start(site, "second")
        await waiting(second)
        with pytest.raises(WorkflowUpdateFailedError) as refused:
            await second.execute_update(MigrateVm.start_now)
        assert "but for a slot" in str(refused.value.cause)
        let_go(step)
        await outcome(first)
        await outcome(second)


async def test_a_wait_that_takes_all_the_time_of_the_policy_ends_with_what_it_waited_for(
    site: FakeSite, temporal: WorkflowEnvironment
) -> None:
    site.slots = ONE_INTO_EACH
    step = hold(site)
    async with site.working():
        with temporal.with_time_skipping_disabled():
            first = await start(site, "first")
            await reached(step)
        error = await failure(await start(site, "second", finish_within=1200))
        assert await lines(site) == {"first": True}
        let_go(step)
        await outcome(first)
    assert error.type == "Refused"
    assert re.search(r"second waited 20 min \d\d s for a slot, all the time that its policy gives it", error.message)
    assert "1 of 1 moves into host-b; it is the next. Nothing was started" in error.message


@pytest.mark.usefixtures("real_time")
async def test_a_deadline_changed_while_it_waits_holds_for_the_wait(site: FakeSite) -> None:
    site.slots = ONE_INTO_EACH
    step = hold(site)
    async with site.working():
        first = await start(site, "first")
        await reached(step)
        second = await start(site, "second")
        await waiting(second)
        past = datetime(2020, 1, 1, tzinfo=UTC).isoformat()
        await second.execute_update("set_policy", {"finish_by": past})
        assert (await failure(second)).type == "Refused"
        let_go(step)
        await outcome(first)


@pytest.mark.usefixtures("real_time")
async def test_what_has_changed_while_it_waited_is_found_out_and_the_slot_goes_to_the_next(site: FakeSite) -> None:
    site.slots = ONE_INTO_EACH
    step = hold(site)
    async with site.working():
        first = await start(site, "first")
        await reached(step)
        second, third = await start(site, "second", priority=1), await start(site, "third")
        await waiting(second)
        await waiting(third)
        site.destination.refuses.add("second")
        let_go(step)
        await outcome(first)
        assert "[no] host-b will not" in (await failure(second)).message
        await outcome(third)


@pytest.mark.usefixtures("real_time")
async def test_a_terminated_keeper_is_started_again_and_knows_who_moves_and_who_waits(site: FakeSite) -> None:
    site.slots = ONE_INTO_EACH
    step = hold(site)
    seen: list[int] = []
    step.change = lambda: seen.append(len(site.destination.paths))
    async with site.working():
        first = await start(site, "first")
        await reached(step)
        second = await start(site, "second")
        await waiting(second)
        await keeper(site).terminate()
        third = await start(site, "third")
        await waiting(third, "1 of 1 moves into host-b; 1 before it, the first is second")
        assert await lines(site) == {"first": True, "second": False, "third": False}
        let_go(step)
        for move in (first, second, third):
            await outcome(move)
    assert seen == [1, 1, 1]


@pytest.mark.usefixtures("real_time")
async def test_a_keeper_that_is_terminated_whenever_a_move_begins_still_lets_all_move_one_by_one(
    site: FakeSite,
) -> None:
    site.slots = ONE_INTO_EACH
    seen: list[int] = []
    ends: list[asyncio.Task[None]] = []

    def terminate() -> None:
        seen.append(len(site.destination.paths))
        ends.append(asyncio.create_task(keeper(site).terminate()))

    site.at(site.source, "move_vm", change=terminate)
    async with site.working():
        moves = [await start(site, f"vm-{number}") for number in range(5)]
        for move in moves:
            await outcome(move)
        await asyncio.gather(*ends)
    assert seen == [1] * 5


@pytest.mark.usefixtures("real_time")
async def test_a_keeper_that_was_lost_is_started_by_a_move_that_ends(site: FakeSite) -> None:
    site.slots = ONE_INTO_EACH
    step = hold(site)
    async with site.working():
        first = await start(site, "first")
        await reached(step)
        second = await start(site, "second")
        await waiting(second)
        await keeper(site).terminate()
        let_go(step)
        await outcome(first)
        await outcome(second)


@pytest.mark.usefixtures("real_time")
async def test_limits_set_while_moves_run_count_those_too(site: FakeSite) -> None:
    step = hold(site)
    async with site.working():
        first = await start(site, "first")
        await reached(step)
    site.slots = ONE_INTO_EACH
    async with site.working():
        second = await start(site, "second")
        await waiting(second, "1 of 1 moves into host-b")
        await second.execute_update(MigrateVm.cancel, "seen enough")
        assert (await failure(second)).type == "Cancelled"
        let_go(step)
        await first.terminate()


@pytest.mark.usefixtures("real_time")
async def test_a_move_that_was_terminated_while_it_waited_holds_up_nobody(site: FakeSite) -> None:
    site.slots = ONE_INTO_EACH
    step = hold(site)
    async with site.working():
        first = await start(site, "first")
        await reached(step)
        second, third = await start(site, "second", priority=1), await start(site, "third")
        await waiting(second)
        await waiting(third)
        await second.terminate()
        let_go(step)
        await outcome(first)
        async with asyncio.timeout(20):  # long before the keeper looks who has ended
            await outcome(third)


async def test_a_move_that_was_terminated_frees_its_slot(site: FakeSite, temporal: WorkflowEnvironment) -> None:
    site.slots = ONE_INTO_EACH
    step = hold(site)
    async with site.working():
        first = await start(site, "first")
        await reached(step)
        with temporal.with_time_skipping_disabled():
            second = await start(site, "second")
        await first.terminate()
        let_go(step)
        await outcome(second)


@pytest.mark.usefixtures("real_time")
async def test_without_an_answer_no_move_begins_and_a_cancel_still_works(
    site: FakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.slots = ONE_INTO_EACH

    async def away(*_: object) -> None:
        raise ApplicationError("no keeper today", non_retryable=True)

    monkeypatch.setattr(SlotActivities, "_send", away)
    async with site.working():
        move = await site.start()
        seen = await waiting(move)
        assert "nobody could say whether one is free" in seen.note
        assert "no keeper today" in seen.note
        await move.execute_update(MigrateVm.cancel, "no patience")
        assert (await failure(move)).type == "Cancelled"
    assert site.journal[-1] == "host-b.admit_vm", "nothing was opened"


@pytest.mark.usefixtures("real_time")
async def test_a_keeper_goes_on_with_what_a_run_before_it_knew(site: FakeSite) -> None:
    site.slots = ONE_INTO_EACH
    first = ids.migrate_vm(site.name, "first")
    wish = SlotWish(workflow_id=first, run_id="r", source="host-a", to="host-b", since=datetime.now(UTC))
    known = SlotsState(lines=(SlotLine(wish=wish, held=True),), limits=ONE_INTO_EACH, counted=True)
    async with site.working():
        await site.client.start_workflow(SiteSlots.run, known, id=ids.slots(site.name), task_queue=site.queue)
        second = await start(site, "second")
        await waiting(second, "1 of 1 moves into host-b")
        await keeper(site).signal(SiteSlots.give_back, GiveBack(workflow_id=first, run_id="another run"))
        assert await lines(site) == {"first": True, "second": False}
        await keeper(site).signal(SiteSlots.give_back, GiveBack(workflow_id=first, run_id="r"))
        await outcome(second)
