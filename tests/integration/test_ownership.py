"""Ownership on real parts: a real host refuses an old token, and one command cleans up after a terminated move."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import uuid4

import pytest
from temporalio.client import ActivityFailureError
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError

from models import queues
from models.migration import VmRef
from models.recovery import RecoverReport
from novacron import AlreadyMoving
from novacron.ownership import Ownership
from tests.integration.scene import GUEST, SITE, Scene

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]


async def test_of_recoveries_at_once_one_works_and_tokens_grow(scene: Scene) -> None:
    here, keeper = scene.here(), Ownership(scene.nc)
    answers = await asyncio.gather(*(keeper.recover(GUEST) for _ in range(3)), return_exceptions=True)
    reports = [each for each in answers if isinstance(each, RecoverReport)]
    assert reports
    assert all(isinstance(each, RecoverReport | AlreadyMoving) for each in answers), answers
    assert {(each.host, each.state, each.done) for each in reports} <= {
        (here, "running", ()), (here, "running", reports[0].done)
    }  # fmt: skip
    after = await keeper.recover(GUEST)
    assert after.token > max(each.token for each in reports)
    (record,) = [lease for lease in await keeper.owners() if lease.vm == GUEST]
    assert (record.host, record.token, record.operation) == (here, after.token, "")
    await scene.proved(on=here)


async def test_a_real_host_refuses_an_old_token_and_names_both(scene: Scene) -> None:
    here, keeper = scene.here(), Ownership(scene.nc)
    old = await keeper.recover(GUEST)
    new = await keeper.recover(GUEST)
    with pytest.raises(ActivityFailureError) as caught:
        await scene.nc.client.execute_activity(
            "novacron.discard_incoming",
            VmRef(vm=GUEST, uuid=old.uuid, token=old.token),
            id=f"late-{uuid4().hex}",
            task_queue=queues.host(SITE, here),
            start_to_close_timeout=timedelta(seconds=30),
            retry_policy=RetryPolicy(maximum_attempts=1),
        )
    assert isinstance(caught.value.cause, ApplicationError)
    assert caught.value.cause.type == "Refused"
    assert f"owner token {old.token}, and this host has seen {new.token}" in caught.value.cause.message
    await scene.proved(on=here)


async def test_after_a_terminated_move_one_command_leaves_one_copy_and_nothing_else(scene: Scene) -> None:
    keeper = Ownership(scene.nc)
    handle = await scene.start(scene.there())
    await scene.middle(handle)
    await handle.terminate("as an impatient person would")
    report = await keeper.recover(GUEST)
    here = scene.here()
    assert (report.host, report.state) == (here, "running")
    assert any("data path" in done for done in report.done), report
    await scene.proved(on=here)
    (record,) = [lease for lease in await keeper.owners() if lease.vm == GUEST]
    assert (record.host, record.operation) == (here, "")
    assert (await keeper.recover(GUEST)).done == ()
    await scene.end(await scene.start(scene.there()))
