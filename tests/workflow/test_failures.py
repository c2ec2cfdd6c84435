"""MigrateVm when a step fails: the VM stays or has moved, nothing is left open, and nothing is destroyed on a guess."""

from __future__ import annotations

import pytest
from temporalio.exceptions import ApplicationError

from models.host import VmReport
from tests.workflow.fake_site import VM, FakeSite, failure, outcome, reached, vm

pytestmark = pytest.mark.temporal

CLOSED = ["host-a.close_path", "host-b.close_path"]


def broken(kind: str = "MigrationFailed", text: str = "it broke") -> ApplicationError:
    return ApplicationError(text, type=kind, non_retryable=True)


async def test_a_failed_check_leaves_nothing_to_undo(site: FakeSite) -> None:
    site.at(site.source, "inspect_vm", error=broken("Refused"))
    async with site.working():
        error = await site.failure()
    assert error.type == "Refused"
    assert "it broke. counter was not touched" in error.message
    assert not [entry for entry in site.journal if entry.endswith("_path")]


async def test_a_destination_that_cannot_listen_is_closed_again(site: FakeSite) -> None:
    site.at(site.destination, "open_path", error=broken("DataPathFailed"))
    async with site.working():
        error = await site.failure()
    assert error.type == "DataPathFailed"
    assert site.after("host-b.open_path") == ["host-b.close_path"]
    assert (site.runs_on(), site.left_open()) == (["host-a"], [])


async def test_a_source_that_cannot_connect_closes_both_ends(site: FakeSite) -> None:
    site.at(site.source, "open_path", error=broken("DataPathFailed"))
    async with site.working():
        error = await site.failure()
    assert error.type == "DataPathFailed"
    assert sorted(site.after("host-a.open_path")) == CLOSED
    assert (site.runs_on(), site.left_open()) == (["host-a"], [])


async def test_a_failed_move_asks_both_hosts_then_closes_both_ends(site: FakeSite) -> None:
    site.at(site.source, "move_vm", error=broken())
    async with site.working():
        error = await site.failure()
    assert error.type == "MigrationFailed"
    assert "it broke. host-a has it running; host-b does not have it" in error.message
    rest = site.journal[site.journal.index("host-a.move_vm") + 1 :]
    assert rest[:2] == ["host-b.look_for_vm", "host-a.look_for_vm"]
    assert sorted(rest[2:]) == CLOSED
    assert (site.runs_on(), site.left_open()) == (["host-a"], [])


async def test_a_leftover_is_discarded_before_the_paths_are_closed(site: FakeSite) -> None:
    def leave() -> None:
        site.destination.vms[VM] = vm("paused")

    site.at(site.source, "move_vm", change=leave, error=broken())
    async with site.working():
        error = await site.failure()
    rest = site.after("host-a.move_vm")
    assert rest[0] == "host-b.discard_incoming"
    assert sorted(rest[1:]) == CLOSED
    assert "removed the paused leftover" in error.message
    assert site.runs_on() == ["host-a"]


@pytest.mark.parametrize("here", [vm("paused"), None])
async def test_nothing_is_discarded_unless_the_source_runs_the_vm(site: FakeSite, here: VmReport | None) -> None:
    def split() -> None:
        site.destination.vms[VM] = vm("paused")
        site.source.vms.pop(VM)
        if here is not None:
            site.source.vms[VM] = here

    site.at(site.source, "move_vm", change=split, error=broken())
    async with site.working():
        error = await site.failure()
    assert error.type == "Ambiguous"
    assert "host-b has it paused" in error.message
    assert "host-b.discard_incoming" not in site.journal
    assert site.destination.vms[VM] == vm("paused")
    assert site.left_open() == []


async def test_two_running_copies_are_told_and_nothing_is_destroyed(site: FakeSite) -> None:
    def double() -> None:
        site.destination.vms[VM] = vm()

    site.at(site.source, "move_vm", change=double, error=broken())
    async with site.working():
        error = await site.failure()
    assert error.type == "Ambiguous"
    assert "host-a has it running; host-b has it running" in error.message
    assert site.runs_on() == ["host-a", "host-b"]
    assert "host-b.discard_incoming" not in site.journal


async def test_answers_given_at_different_moments_of_the_switch_are_asked_again(site: FakeSite) -> None:
    """The destination said `not there`, then the VM switched, then the source said `not there`."""

    def switch() -> None:
        site.switch(VM, "host-a", "host-b")

    site.at(site.source, "move_vm", error=broken())
    site.at(site.source, "look_for_vm", change=lambda: switch() if site.runs_on() == ["host-a"] else None)
    async with site.working():
        result = await site.move({"vm": VM, "to": "host-b", "source": "host-a"})
    assert site.journal.count("host-b.look_for_vm") == 2
    assert "yet host-a does not have it; host-b has it running" in result.notes[0]


async def test_a_vm_that_neither_host_has_is_a_failed_move(site: FakeSite) -> None:
    site.at(site.source, "move_vm", change=site.source.vms.clear, error=broken())
    async with site.working():
        error = await site.failure()
    assert error.type == "MigrationFailed"
    assert "neither host runs the VM" in error.message


async def test_a_failed_move_of_a_vm_that_arrived_is_a_success_with_a_note(site: FakeSite) -> None:
    site.at(site.source, "move_vm", change=lambda: site.switch(VM, "host-a", "host-b"), error=broken())
    async with site.working():
        result = await site.move()
    assert result.destination == "host-b"
    assert "the move step failed (it broke), yet" in result.notes[0]
    assert site.left_open() == []


async def test_a_move_that_says_done_while_the_vm_stayed_is_a_failure(site: FakeSite) -> None:
    def pretend() -> None:
        site.destination.vms.pop(VM, None)

    site.at(site.destination, "look_for_vm", change=pretend)
    site.at(site.source, "look_for_vm", change=lambda: site.source.vms.update({VM: vm()}))
    async with site.working():
        error = await site.failure({"vm": VM, "to": "host-b", "source": "host-a"})
    assert error.type == "MigrationFailed"
    assert "The move step reported success. host-a has it running" in error.message


async def test_a_job_that_will_not_end_loses_its_data_path_and_is_asked_again(site: FakeSite) -> None:
    def run_on() -> None:
        site.source.vms[VM] = vm(job=True)

    def end() -> None:
        site.source.vms[VM] = vm()

    site.at(site.source, "move_vm", change=run_on, error=broken())
    site.at(site.source, "close_path", change=end)
    async with site.working():
        error = await site.failure()
    assert error.type == "MigrationFailed"
    assert "host-a has it running; host-b does not have it" in error.message


async def test_a_retried_step_does_not_fail_the_move(site: FakeSite) -> None:
    site.at(site.source, "open_path", error=ApplicationError("busy", type="HostUnavailable"), times=1)
    async with site.working():
        assert (await site.move()).notes == ()
    assert site.journal.count("host-a.open_path") == 2


@pytest.mark.parametrize("host", ["host-a", "host-b"])
async def test_a_host_that_dies_in_the_move_makes_its_end_unknown_not_endless(site: FakeSite, host: str) -> None:
    step = site.at(site.source, "move_vm", hold=True, error=broken())
    async with site.working():
        move = await site.start()
        await reached(step)
        assert step.release is not None
        step.release.set()
        await site.kill(site.hosts[host])
        error = await failure(move)
    assert error.type == "Ambiguous"
    assert f"{host} did not answer" in error.message
    if host == "host-a":  # the source may be in the middle of its switch
        assert "the data path was left alone" in error.message
        assert "close_path" not in str(site.journal)
    else:
        assert "the data path of migration" in error.message
        assert "is left on host-b" in error.message
    assert "discard_incoming" not in str(site.journal)


@pytest.mark.parametrize("there", [None, vm("paused"), vm()])
async def test_a_source_that_waits_for_the_switch_keeps_its_data_path(site: FakeSite, there: VmReport | None) -> None:
    def wait_on() -> None:
        site.source.vms[VM] = vm("paused", job=True)
        site.destination.vms.update({VM: there} if there else {})

    site.at(site.source, "move_vm", change=wait_on, error=broken("Ambiguous"))
    async with site.working():
        error = await site.failure()
    assert error.type == "Ambiguous"
    assert "the data path was left alone" in error.message
    assert "close_path" not in str(site.journal)
    assert "discard_incoming" not in str(site.journal)


async def test_clean_up_that_cannot_reach_a_host_ends_and_says_what_is_left(site: FakeSite) -> None:
    site.at(site.destination, "close_path", error=broken("HostUnavailable", "no libvirt"))
    async with site.working():
        result = await site.move()
    assert any("is left on host-b and ends by itself (no libvirt)" in note for note in result.notes)
    assert any("memory digest not compared" in note for note in result.notes)
    assert site.runs_on() == ["host-b"]


async def test_a_leftover_that_cannot_be_removed_is_told(site: FakeSite) -> None:
    def leave() -> None:
        site.destination.vms[VM] = vm("paused")

    site.at(site.source, "move_vm", change=leave, error=broken())
    site.at(site.destination, "discard_incoming", error=broken("Refused", "not an incoming one"))
    async with site.working():
        error = await site.failure()
    assert error.type == "MigrationFailed"
    assert "is left on host-b (not an incoming one)" in error.message
    assert site.left_open() == []


async def test_an_interrupted_worker_cache_replays_to_the_same_end(site: FakeSite) -> None:
    """The control worker loses the workflow in the middle of the move and rebuilds it from history."""
    step = site.at(site.source, "move_vm", hold=True)
    async with site.working():
        move = await site.start()
        await reached(step)
    async with site.working():
        assert step.release is not None
        step.release.set()
        assert (await outcome(move)).destination == "host-b"
