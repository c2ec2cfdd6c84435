"""novacron.MoveToCloud with `prepare`: the guest is made ready when it is off, in a layer over its image; its source
stays as it was, and a guest that cannot be prepared does not go."""

from __future__ import annotations

from typing import Any

import pytest
from temporalio.client import WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError

from tests.workflow.fake_cloud import PREPARED
from tests.workflow.fake_guests import LUKS
from tests.workflow.fake_site import VM, FakeSite, vm
from tests.workflow.test_move_to_cloud import at_home, begin, ended, failed, stands
from workflows.cloud.move_to_cloud import MoveToCloud

pytestmark = pytest.mark.temporal


async def test_a_guest_is_prepared_after_it_has_stopped_and_the_instance_boots_that(site: FakeSite) -> None:
    async with site.working():
        result = await ended(await begin(site, prepare=True, keep_source_for=0))
    steps = [entry.removeprefix("host-a.") for entry in site.journal if entry.startswith("host-a.")]
    last = steps[steps.index("stop_source") :]
    assert last[:3] == ["stop_source", "prepare_guest", "send_disk"]
    assert [order.layer for order in site.source.cloud.sends][-2:] == [0, 1]
    assert site.cloud.instances[result.instance][2] == site.source.cloud.holds + PREPARED
    assert result.prepared is not None
    assert [change.path for change in result.prepared.changes] == ["update-initramfs"]
    assert "prepared for aws: drivers" in result.notes
    assert not any("[drivers]" in note for note in result.notes), "it has them now"
    assert site.source.guests.layers == set()
    assert site.cloud.two_copies == []


async def test_without_being_asked_nothing_is_prepared(site: FakeSite) -> None:
    async with site.working():
        result = await ended(await begin(site, keep_source_for=0))
    assert result.prepared is None
    assert not any("guest" in entry or "layers" in entry for entry in site.journal)


async def test_a_guest_that_is_ready_is_sent_as_it_is(site: FakeSite) -> None:
    site.source.guests.changes = ()
    async with site.working():
        result = await ended(await begin(site, prepare=True, keep_source_for=0))
    assert {order.layer for order in site.source.cloud.sends} == {0}
    assert result.prepared is not None
    assert result.prepared.state == "ready"


async def test_a_guest_that_cannot_be_prepared_is_given_back(site: FakeSite) -> None:
    """It ran, so that was not known before it was off."""
    site.source.guests.refusals = (LUKS,)
    async with site.working():
        move = await begin(site, prepare=True)
        seen = await stands(move, "waiting", "encrypted (LUKS)")
        assert site.source.vms[VM].state == "running"
        assert any("known when it is off" in note for note in seen.notes)
        await move.execute_update(MoveToCloud.cancel, "by hand then")
        assert (await failed(move)).type == "Cancelled"
    at_home(site)


async def test_each_cut_over_prepares_anew_what_the_guest_has_written_since(site: FakeSite) -> None:
    site.cloud.well = False
    async with site.working():
        move = await begin(site, prepare=True, keep_source_for=0)
        await stands(move, "waiting", "was undone")
        assert site.source.guests.layers == set(), "it fits no more"
        site.cloud.well = True
        await move.execute_update(MoveToCloud.cut_over_now)
        await ended(move)
    assert [order.attempt for order in site.source.guests.prepares] == [1, 2]
    assert [order.layer for order in site.source.cloud.sends if order.layer] == [1, 2]
    assert len({order.vm.token for order in site.source.guests.prepares}) == 1


async def test_a_worker_that_cannot_drop_a_layer_keeps_nobody_from_running(site: FakeSite) -> None:
    site.cloud.well = False
    site.at(site.source, "drop_layers", error=ApplicationError("no", type="Refused", non_retryable=True))
    async with site.working():
        move = await begin(site, prepare=True)
        await stands(move, "waiting", "was undone")
        assert site.source.vms[VM].state == "running"
        await move.execute_update(MoveToCloud.cancel, "")
        await failed(move)
    assert site.source.cloud.settled, "which drops it as well"


async def test_what_is_known_of_a_vm_that_is_off_refuses_before_anything_is_copied(site: FakeSite) -> None:
    site.source.vms[VM] = vm("shutoff")
    site.source.guests.refusals = (LUKS,)
    async with site.working():
        error = await failed(await begin(site, prepare=True))
    assert error.type == "Refused"
    assert "[prepare] machine: vda2 is encrypted" in error.message
    assert site.cloud.things() == []
    assert site.source.cloud.sends == []


async def test_a_host_that_cannot_prepare_refuses_before_anything_is_copied(site: FakeSite) -> None:
    site.source.guests.obstacle = "qemu-system-x86_64 is not installed here"
    async with site.working():
        error = await failed(await begin(site, prepare=True))
    assert "[prepare] host-a cannot prepare counter: qemu-system-x86_64 is not installed" in error.message
    assert site.source.vms[VM].state == "running"
    assert site.source.cloud.sends == []


async def test_a_dry_run_of_a_vm_that_is_off_says_what_would_be_changed(site: FakeSite) -> None:
    site.source.vms[VM] = vm("shutoff")
    async with site.working():
        result = await ended(await begin(site, prepare=True, dry_run=True))
    assert result.plan is not None
    assert result.plan.ok
    assert result.plan.prepared is not None
    assert result.plan.prepared.state == "to be changed"
    assert any("make the guest ready for aws, in a layer" in step for step in result.plan.steps)
    assert result.prepared is None


@pytest.mark.parametrize(
    ("raw", "field"),
    [({"dhcp": True}, "dhcp goes with prepare"), ({"prepare": "auto"}, "prepare:"), ({"prepared": True}, "'prepare'?")],
)
async def test_a_wish_that_makes_no_sense_is_refused_at_once(site: FakeSite, raw: dict[str, Any], field: str) -> None:
    async with site.working():
        error = await failed(await begin(site, **raw))
    assert error.type == "InvalidInput"
    assert field in error.message


async def test_a_test_would_boot_what_is_not_prepared_yet(site: FakeSite) -> None:
    wish = {"network": {"subnet": "subnet-1", "security_groups": ["sg-1"]}}
    async with site.working():
        move = await begin(site, prepare=True, cut_over="manual")
        await stands(move, "waiting")
        with pytest.raises(WorkflowUpdateFailedError) as caught:
            await move.execute_update("test_cut_over", wish)
        assert "prepared at the cut-over" in str(caught.value.cause)
        await move.execute_update(MoveToCloud.cancel, "")
        await failed(move)
    at_home(site)
