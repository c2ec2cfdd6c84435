"""MigrateVm when things go well."""

from __future__ import annotations

import pytest
from temporalio.client import WorkflowHandle

from models.migration import MigrationOutcome, Progress
from tests.workflow.fake_site import VM, FakeSite
from workflows import search_attributes as sa
from workflows.migrate_vm import MigrateVm

pytestmark = pytest.mark.temporal


async def start(site: FakeSite, raw: object = None) -> WorkflowHandle[MigrateVm, MigrationOutcome]:
    request = raw if raw is not None else {"vm": VM, "to": "host-b"}
    return await site.client.start_workflow(MigrateVm.run, request, id=site.id, task_queue=site.queue)


async def test_a_vm_moves_and_every_path_is_closed(site: FakeSite) -> None:
    async with site.working():
        outcome = await (await start(site)).result()
    assert (outcome.source, outcome.destination, outcome.vm) == ("host-a", "host-b", VM)
    assert site.runs_on() == ["host-b"]
    assert site.left_open() == []
    assert (outcome.digest, outcome.digest_verified, outcome.notes) == ("d1", True, ())
    assert (outcome.raw_bytes, outcome.wire_bytes, outcome.downtime_ms) == (1000, 320, 40)
