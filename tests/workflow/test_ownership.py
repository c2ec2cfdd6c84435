"""The owner record through a move: taken before anything starts, right when it ended, never in the way of its end."""

from __future__ import annotations

import pytest
from temporalio.exceptions import ApplicationError

from models.host import VmReport
from models.lease import Lease
from tests.workflow.fake_site import UUID, VM, FakeSite, outcome, vm

pytestmark = pytest.mark.temporal


def record(site: FakeSite) -> Lease:
    return site.leases.records[UUID]


def owned_by(site: FakeSite, host: str, **more: object) -> None:
    fields = {"site": site.name, "uuid": UUID, "vm": VM, "host": host, "token": 7, **more}
    site.leases.records[UUID], site.leases.last = Lease.model_validate(fields), 7


async def test_a_move_takes_a_new_token_that_every_order_carries_and_hands_over_last(site: FakeSite) -> None:
    owned_by(site, "host-a")
    owners: list[str] = []
    site.at(site.source, "close_path", change=lambda: owners.append(record(site).host))
    async with site.working():
        await site.move()
    assert owners == ["host-a"], "ownership changed before both ends were closed"
    assert (record(site).host, record(site).token, record(site).operation) == ("host-b", 8, "")
    assert site.source.tokens == site.destination.tokens == {VM: 8}


async def test_a_failed_move_leaves_the_owner_and_releases_the_operation(site: FakeSite) -> None:
    site.at(site.source, "move_vm", error=ApplicationError("it broke", type="MigrationFailed", non_retryable=True))
    async with site.working():
        await site.failure()
    assert (record(site).host, record(site).token, record(site).operation) == ("host-a", 1, "")


async def test_without_the_store_a_move_is_refused_before_anything_starts(site: FakeSite) -> None:
    site.leases.gone = True
    async with site.working():
        error = await site.failure()
    assert error.type == "LeasesUnavailable"
    assert "they are away. counter was not touched" in error.message
    assert not [entry for entry in site.journal if entry.endswith(("open_path", "move_vm"))]


async def test_a_store_that_goes_in_mid_move_costs_a_note_and_not_the_move(site: FakeSite) -> None:
    site.at(site.source, "move_vm", change=lambda: setattr(site.leases, "gone", True))
    async with site.working():
        result = await site.move()
    assert site.runs_on() == ["host-b"]
    assert site.left_open() == []
    assert any("the owner record still names host-a" in note and "novacron recover" in note for note in result.notes)
    assert record(site).operation, "the lease was released without a store"


async def test_the_store_that_comes_back_gets_the_record_of_the_move(site: FakeSite) -> None:
    """Gone while the move ends, back a while later: the record follows without anybody's help."""
    site.at(site.source, "move_vm", change=lambda: setattr(site.leases, "gone", True))
    asked = site.leases.release

    def back_after_three(held: object, calls: list[int] = [0]) -> Lease | None:  # noqa: B006
        calls[0] += 1
        site.leases.gone = calls[0] <= 3
        return asked(held)  # type: ignore[arg-type]

    site.leases.release = back_after_three  # type: ignore[method-assign]
    async with site.working():
        assert (await site.move()).notes == ()
    assert (record(site).host, record(site).operation) == ("host-b", "")


async def test_a_dead_run_of_the_same_vm_does_not_stand_in_the_way(site: FakeSite) -> None:
    owned_by(site, "host-a", lock=site.id, operation="dead", expires=2e10)
    async with site.working():
        await site.move()
    assert (record(site).host, record(site).token) == ("host-b", 8)


async def test_another_holder_is_named_and_nothing_starts(site: FakeSite) -> None:
    owned_by(site, "host-a", lock="somebody", operation="else", expires=2e10)
    async with site.working():
        error = await site.failure()
    assert error.type == "Refused"
    assert "held by operation else (somebody) under token 7" in error.message
    assert site.left_open() == []


async def test_a_record_that_names_a_host_without_the_vm_is_corrected(site: FakeSite) -> None:
    owned_by(site, "host-c")
    site.at(site.source, "move_vm", error=ApplicationError("it broke", type="MigrationFailed", non_retryable=True))
    async with site.working():
        error = await site.failure()
    assert "the owner record named host-c" in error.message
    assert record(site).host == "host-a"


@pytest.mark.parametrize("there", [vm("paused"), vm()])
async def test_a_record_that_names_a_host_with_a_live_copy_stops_the_move(site: FakeSite, there: VmReport) -> None:
    owned_by(site, "host-c")
    site.hosts["host-c"].vms[VM] = there
    async with site.working():
        error = await site.failure({"vm": VM, "to": "host-b", "source": "host-a"})
    assert error.type == "Ambiguous"
    assert "its owner record names host-c: host-c has it" in error.message
    assert "host-b.open_path" not in site.journal
    assert record(site).operation == ""


async def test_a_host_that_was_started_anew_is_reconciled_and_then_takes_the_vm(site: FakeSite) -> None:
    site.destination.reconciled = False
    async with site.working():
        await site.move()
    assert "host-b.welcome_host" in site.journal


async def test_a_host_that_came_back_with_a_copy_takes_no_vm(site: FakeSite) -> None:
    site.destination.reconciled = False
    site.destination.vms["web"] = vm(name="web")
    site.hosts["host-c"].vms["web"] = vm(name="web")
    async with site.working():
        error = await site.failure()
    assert error.type == "Refused"
    assert "[not-reconciled]" in error.message
    assert "host-b.welcome_host" not in site.journal


async def test_a_long_move_renews_its_lease(site: FakeSite) -> None:
    """Post-copy broke off, and the pauses before it is gone on with are longer than the lease holds."""

    def split() -> None:
        site.split(vm("paused", reason=13), vm(reason=11))

    site.at(site.source, "move_vm", change=split, times=1, error=ApplicationError("off", type="Ambiguous"))
    site.at(site.source, "look_for_vm", change=lambda: None)
    refusals = site.at(
        site.destination, "open_path", error=ApplicationError("no", type="Refused", non_retryable=True), times=0
    )

    def no_way_for_a_while() -> None:
        refusals.times = 6

    site.at(site.source, "close_path", change=no_way_for_a_while, times=1)
    async with site.working():
        move = await site.start({"vm": VM, "to": "host-b", "policy": {"mode": "post-copy"}})
        await outcome(move)
    assert site.leases.renewals >= 1
    assert (record(site).host, record(site).operation) == ("host-b", "")
