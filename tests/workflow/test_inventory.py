"""An inventory answers in pages that Temporal can carry; the client reads all of them."""

from __future__ import annotations

import pytest
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ApplicationError

from novacron.client import NovaCron
from tests.workflow.fake_site import FakeSite, vm
from workflows.site.inventory import MOST_BYTES, Inventory

pytestmark = pytest.mark.temporal

MANY = 2000
"""As many VMs as a report may hold: three such hosts are more than one answer takes."""


@pytest.fixture
def large(site: FakeSite) -> FakeSite:
    for number, host in enumerate(site.hosts.values()):
        names = [f"vm-{number}-{each:04}" for each in range(MANY)]
        host.vms = {name: vm(name=name).model_copy(update={"labels": {"tenant": 40 * "t"}}) for name in names}
    return site


async def test_a_site_too_large_for_one_answer_is_told_in_several(large: FakeSite) -> None:
    async with large.working():
        first = await large.client.execute_workflow(
            Inventory.run, id=f"inventory/{large.name}/1", task_queue=large.queue
        )
        whole = await NovaCron(large.client, large.name).hosts()
    assert [host.host for host in first.hosts] == ["host-a", "host-b"]
    assert first.rest == ("host-c",)
    assert len(first.model_dump_json()) < MOST_BYTES + 1000
    assert [len(host.vms) for host in whole.hosts] == [MANY, MANY, MANY]
    assert whole.rest == ()


async def test_only_hosts_that_are_named_are_asked(site: FakeSite) -> None:
    async with site.working():
        report = await site.client.execute_workflow(
            Inventory.run, {"hosts": ["host-b"]}, id=f"inventory/{site.name}/1", task_queue=site.queue
        )
    assert [host.host for host in report.hosts] == ["host-b"]
    assert site.journal == ["host-b.describe_host"]


async def test_a_host_of_another_site_is_refused(site: FakeSite) -> None:
    async with site.working():
        with pytest.raises(WorkflowFailureError) as caught:
            await site.client.execute_workflow(
                Inventory.run, {"hosts": ["host-z"]}, id=f"inventory/{site.name}/1", task_queue=site.queue
            )
    assert isinstance(caught.value.cause, ApplicationError)
    assert caught.value.cause.type == "InvalidInput"
    assert "host-z" in caught.value.cause.message
