"""Disks that the destination does not see are copied with the running VM, which writes to them all the while.

The guest itself is the judge: it reads back what it wrote up to a whole round ago, past all caches, and says FAILED
when the disk does not have it (guest/init).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator

import pytest
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ApplicationError

from models import ids, queues
from models.migration import MigrateRequest, MigrationOutcome, MigrationPolicy
from tests.integration.scene import SITE, Scene
from workers.lab.errors import run
from workers.lab.heartbeats import Heartbeats
from workers.lab.proof import prove

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

NAME = "writer"
HERE, THERE = "host-a", "host-b"
COPY = MigrationPolicy(disks="copy", store=False)
ROUND = 2 * 16
"""Writes after which each block of the disk has been written."""


@pytest.fixture
def writer(scene: Scene) -> Iterator[Heartbeats]:
    scene.lab.boot_guest(NAME, HERE, memory_mib=192, fill=0, check=1, scratch=2)
    try:
        with scene.lab.heartbeats(NAME, from_start=True) as heard:
            yield heard
    finally:
        scene.lab.destroy_guest(NAME)
        for host in (HERE, THERE):
            image = scene.lab.settings.scratch_image(host, NAME)
            image.unlink(missing_ok=True)


def writes(scene: Scene, host: str) -> int:
    """The newest write that the guest found in order on this host."""
    log = scene.lab.settings.serial_log(host, NAME)
    told = re.findall(r"DISK (\d+) ok", log.read_text(errors="replace")) if log.exists() else []
    return int(told[-1]) if told else 0


async def writing(scene: Scene, host: str, beyond: int) -> None:
    async with asyncio.timeout(120):
        while writes(scene, host) < beyond:
            await asyncio.sleep(0.2)


async def move(scene: Scene, policy: MigrationPolicy) -> MigrationOutcome:
    handle = await scene.nc.client.start_workflow(
        "novacron.MigrateVm",
        MigrateRequest(vm=NAME, to=THERE, source=HERE, policy=policy),
        id=ids.migrate_vm(SITE, NAME),
        task_queue=queues.control(SITE),
        result_type=MigrationOutcome,
    )
    async with asyncio.timeout(200):
        outcome: MigrationOutcome = await handle.result()
        return outcome


async def proved(scene: Scene, heard: Heartbeats, on: str) -> None:
    proof = await asyncio.to_thread(prove, scene.hosts, NAME, on, heard)
    assert not proof.problems, "\n".join(proof.problems)


@pytest.mark.parametrize("mode", ["pre-copy", "post-copy"])
async def test_a_disk_only_the_source_sees_moves_with_the_guest_that_writes_to_it(
    scene: Scene, writer: Heartbeats, mode: str
) -> None:
    await writing(scene, HERE, ROUND)
    outcome = await move(scene, COPY.model_copy(update={"mode": mode}))
    assert outcome.disk_bytes > 0
    assert outcome.digest_verified
    assert any("keeps its old images" in note for note in outcome.notes)
    arrived = writes(scene, THERE)
    await writing(scene, THERE, max(arrived, writes(scene, HERE)) + 2 * ROUND)
    await proved(scene, writer, on=THERE)
    image = scene.lab.settings.scratch_image(THERE, NAME)
    assert [entry.name for entry in image.parent.iterdir() if NAME in entry.name] == [image.name], "no mark is left"
    scene.lab.destroy_guest(NAME)
    await asyncio.to_thread(run, "qemu-img", "check", str(image))


async def test_without_copying_such_a_vm_is_refused(scene: Scene, writer: Heartbeats) -> None:
    with pytest.raises(WorkflowFailureError) as failure:
        await move(scene, MigrationPolicy())
    assert isinstance(failure.value.cause, ApplicationError)
    assert failure.value.cause.type == "Refused"
    assert "disks copy" in failure.value.cause.message
    await proved(scene, writer, on=HERE)


async def test_a_file_that_is_there_already_is_never_overwritten(scene: Scene, writer: Heartbeats) -> None:
    image = scene.lab.settings.scratch_image(THERE, NAME)
    image.write_text("somebody's data")
    with pytest.raises(WorkflowFailureError) as failure:
        await move(scene, COPY)
    assert "not overwritten" in str(failure.value.cause)
    assert image.read_text() == "somebody's data"
    await proved(scene, writer, on=HERE)


async def test_a_move_that_fails_in_the_middle_takes_its_image_along(scene: Scene, writer: Heartbeats) -> None:
    handle = await scene.nc.client.start_workflow(
        "novacron.MigrateVm",
        MigrateRequest(vm=NAME, to=THERE, source=HERE, policy=COPY.model_copy(update={"bandwidth_mib": 4})),
        id=ids.migrate_vm(SITE, NAME),
        task_queue=queues.control(SITE),
        result_type=MigrationOutcome,
    )
    await scene.middle(handle, percent=1)
    image = scene.lab.settings.scratch_image(THERE, NAME)
    assert image.exists()
    await handle.execute_update("cancel", "the test wants it back")
    with pytest.raises(WorkflowFailureError):
        await handle.result()
    assert not image.exists()
    assert not image.with_name(f"{image.name}.novacron").exists()
    await writing(scene, HERE, writes(scene, HERE) + 16)
    await proved(scene, writer, on=HERE)
