"""Disks copied with their VM: made ready before the move, kept with it, removed without it, never on a guess."""

from __future__ import annotations

import pytest
from temporalio.exceptions import ApplicationError

from models.disks import DiskImage
from tests.workflow.fake_site import VM, FakeSite, vm

pytestmark = pytest.mark.temporal

SCRATCH = DiskImage(target="vdb", path="/images/scratch.qcow2", format="qcow2", capacity=64 << 20)
COPY = {"vm": VM, "to": "host-b", "policy": {"disks": "copy"}}


def broken() -> ApplicationError:
    return ApplicationError("it broke", type="MigrationFailed", non_retryable=True)


@pytest.fixture(autouse=True)
def not_shared(site: FakeSite) -> None:
    site.destination.copies = (SCRATCH,)


async def test_images_are_made_before_the_path_opens_and_kept_when_the_vm_has_arrived(site: FakeSite) -> None:
    async with site.working():
        result = await site.move(COPY)
    assert site.destination.asked is not None
    assert site.destination.asked.policy.disks == "copy"
    assert site.after("host-b.admit_vm")[:2] == ["host-b.prepare_disks", "host-b.open_path"]
    assert site.source.moves[0].copies == ("vdb",)
    assert "host-b.settle_disks keep" in site.journal
    assert site.destination.images == {SCRATCH.path}
    assert result.notes == ("the disks were copied; host-a keeps its old images: /images/scratch.qcow2",)


@pytest.mark.parametrize(
    ("host", "step"),
    [("host-b", "prepare_disks"), ("host-b", "open_path"), ("host-a", "open_path"), ("host-a", "move_vm")],
)
async def test_a_move_that_fails_leaves_no_image(site: FakeSite, host: str, step: str) -> None:
    site.at(site.hosts[host], step, error=broken())
    async with site.working():
        await site.failure(COPY)
    assert "host-b.settle_disks remove" in site.journal
    assert site.destination.images == set()
    assert site.left_open() == []


async def test_images_go_only_after_the_paused_copy_that_uses_them(site: FakeSite) -> None:
    site.at(site.source, "move_vm", change=lambda: site.destination.vms.update({VM: vm("paused")}), error=broken())
    async with site.working():
        await site.failure(COPY)
    journal = site.journal
    assert journal.index("host-b.discard_incoming") < journal.index("host-b.settle_disks remove")


async def test_images_of_a_paused_copy_that_cannot_be_removed_are_left_and_named(site: FakeSite) -> None:
    site.at(site.source, "move_vm", change=lambda: site.destination.vms.update({VM: vm("paused")}), error=broken())
    site.at(site.destination, "discard_incoming", error=broken())
    async with site.working():
        error = await site.failure(COPY)
    assert "settle_disks" not in str(site.journal)
    assert "left on host-b: /images/scratch.qcow2" in error.message


async def test_images_of_a_vm_that_may_run_on_them_are_left_and_named(site: FakeSite) -> None:
    site.at(site.source, "move_vm", change=lambda: site.destination.vms.update({VM: vm()}), error=broken())
    async with site.working():
        error = await site.failure(COPY)
    assert error.type == "Ambiguous"
    assert "settle_disks" not in str(site.journal)
    assert "left on host-b: /images/scratch.qcow2" in error.message


async def test_a_host_that_cannot_settle_its_images_is_noted_and_the_move_is_a_success(site: FakeSite) -> None:
    site.at(site.destination, "settle_disks keep", error=broken())
    async with site.working():
        result = await site.move(COPY)
    assert "marks beside them are left on host-b (it broke): /images/scratch.qcow2" in result.notes


async def test_without_copies_no_step_is_added(site: FakeSite) -> None:
    site.destination.copies = ()
    async with site.working():
        await site.move(COPY)
    assert "disks" not in str(site.journal)
