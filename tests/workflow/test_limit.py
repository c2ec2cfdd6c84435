"""The bound on the link is changed while the move runs, in every phase in which it means something."""

from __future__ import annotations

import pytest
from temporalio.client import WorkflowUpdateFailedError, WorkflowUpdateStage
from temporalio.exceptions import ApplicationError

from tests.workflow.fake_site import VM, FakeSite, Step, outcome, reached

pytestmark = pytest.mark.temporal

MIB = 1 << 20
ACCEPTED = WorkflowUpdateStage.ACCEPTED


def release(step: Step) -> None:
    assert step.release is not None
    step.release.set()


async def test_a_new_bound_holds_at_once_while_the_vm_moves(site: FakeSite) -> None:
    step = site.at(site.source, "move_vm", hold=True)
    async with site.working():
        move = await site.start()
        await reached(step)
        assert await move.execute_update("set_bandwidth", 5) == "5 MiB/s on the link, from now on"
        assert await move.execute_update("set_bandwidth", 0) == "no bound on the link, from now on"
        release(step)
        await outcome(move)
    assert site.source.limits == [5 * MIB, 0]


async def test_a_bound_told_before_the_path_opens_is_part_of_its_order(site: FakeSite) -> None:
    step = site.at(site.source, "inspect_vm", hold=True)
    moving = site.at(site.source, "move_vm", hold=True)
    async with site.working():
        move = await site.start()
        await reached(step)
        assert "noted while checking" in await move.execute_update("set_bandwidth", 5)
        release(step)
        await reached(moving)
        assert {order.policy.wire_mib for order in (*site.source.paths.values(), *site.destination.paths.values())} == {
            5
        }
        release(moving)
        await outcome(move)
    assert site.source.limits == []


async def test_a_bound_told_while_the_path_opens_is_set_before_the_move(site: FakeSite) -> None:
    step = site.at(site.source, "open_path", hold=True)
    async with site.working():
        move = await site.start()
        await reached(step)
        assert "noted while preparing" in await move.execute_update("set_bandwidth", 7)
        release(step)
        await outcome(move)
    assert site.source.limits == [7 * MIB]
    assert site.journal.index("host-a.limit_path") < site.journal.index("host-a.move_vm")


@pytest.mark.parametrize("mib", [-1, 10**9])
async def test_a_bound_that_is_none_is_refused_with_its_limits(site: FakeSite, mib: int) -> None:
    step = site.at(site.source, "move_vm", hold=True)
    async with site.working():
        move = await site.start({"vm": VM, "to": "host-b"})
        await reached(step)
        with pytest.raises(WorkflowUpdateFailedError) as refused:
            await move.execute_update("set_bandwidth", mib)
        assert f"got {mib}. Give MiB a second from 0" in str(refused.value.cause)
        release(step)
        await outcome(move)
    assert site.source.limits == []


@pytest.mark.parametrize(("name", "phase"), [("look_for_vm", "confirming"), ("close_path", "cleaning")])
async def test_when_nothing_crosses_any_more_it_is_refused(site: FakeSite, name: str, phase: str) -> None:
    step = site.at(site.destination, name, hold=True)
    async with site.working():
        move = await site.start({"vm": VM, "to": "host-b", "source": "host-a"})
        await reached(step)
        with pytest.raises(WorkflowUpdateFailedError) as refused:
            await move.execute_update("set_bandwidth", 5)
        assert f"the move is {phase}" in str(refused.value.cause)
        release(step)
        await outcome(move)


async def test_a_host_that_does_not_set_it_is_told_and_the_move_goes_on(site: FakeSite) -> None:
    step = site.at(site.source, "move_vm", hold=True)
    site.at(site.source, "limit_path", error=ApplicationError("no path", type="NotFound", non_retryable=True))
    async with site.working():
        move = await site.start()
        await reached(step)
        with pytest.raises(WorkflowUpdateFailedError) as refused:
            await move.execute_update("set_bandwidth", 5)
        assert "no path" in str(refused.value.cause)
        release(step)
        assert (await outcome(move)).destination == "host-b"


async def test_the_run_ends_only_when_the_update_has_its_answer(site: FakeSite) -> None:
    moving = site.at(site.source, "move_vm", hold=True)
    limiting = site.at(site.source, "limit_path", hold=True)
    async with site.working():
        move = await site.start()
        await reached(moving)
        told = await move.start_update("set_bandwidth", 5, wait_for_stage=ACCEPTED)
        await reached(limiting)
        release(moving)
        release(limiting)
        assert "from now on" in await told.result()
        await outcome(move)


@pytest.mark.parametrize(("allowed", "given"), [(4096, 256 + 64), (100, 100), (0, 0)])
async def test_both_ends_remember_no_more_pages_than_the_guest_has(site: FakeSite, allowed: int, given: int) -> None:
    step = site.at(site.source, "move_vm", hold=True)
    async with site.working():
        policy = {"page_memory_mib": allowed}
        move = await site.start({"vm": VM, "to": "host-b", "source": "host-a", "policy": policy})
        await reached(step)
        opened = [
            path.policy.page_memory_mib for host in (site.source, site.destination) for path in host.paths.values()
        ]
        assert opened == [given, given]
        release(step)
        await outcome(move)
