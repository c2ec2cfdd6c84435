"""A part is killed in the middle of a move. Workers, Temporal and streams cost nothing; a data path or the
destination's QEMU costs the move; nothing costs the VM.

Each case kills a real process with SIGKILL (or a real TCP connection) while the guest's memory is on its way.
"""

from __future__ import annotations

import asyncio

import pytest
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ApplicationError

from tests.integration.scene import GUEST, Scene, break_one_stream

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]


@pytest.mark.parametrize("end", ["source", "destination"])
async def test_a_killed_stream_is_dialled_again_and_the_move_goes_on(scene: Scene, end: str) -> None:
    here, there = scene.here(), scene.there()
    handle = await scene.start(there)
    await scene.middle(handle)
    break_one_stream(scene.data_path(here if end == "source" else there))
    outcome = await scene.end(handle)
    assert outcome.redials > 0, "no stream was dialled again: nothing was tested"
    assert outcome.digest_verified
    await scene.proved(on=there)


@pytest.mark.parametrize("end", ["source", "destination"])
async def test_a_host_worker_killed_in_mid_move_finds_its_move_again(scene: Scene, end: str) -> None:
    here, there = scene.here(), scene.there()
    worker = f"{here if end == 'source' else there}.worker"
    handle = await scene.start(there)
    await scene.middle(handle)
    await asyncio.to_thread(scene.lab.kill, worker)
    await asyncio.to_thread(scene.lab.start, worker)
    outcome = await scene.end(handle)
    assert outcome.digest_verified
    await scene.proved(on=there)


async def test_a_control_worker_killed_in_mid_move_is_not_missed(scene: Scene) -> None:
    there = scene.there()
    handle = await scene.start(there)
    await scene.middle(handle)
    await asyncio.to_thread(scene.lab.kill, "control.worker")
    await asyncio.to_thread(scene.lab.start, "control.worker")
    outcome = await scene.end(handle)
    assert outcome.digest_verified
    await scene.proved(on=there)


async def test_a_temporal_server_killed_in_mid_move_goes_on_from_its_database(scene: Scene) -> None:
    there = scene.there()
    handle = await scene.start(there)
    await scene.middle(handle)
    await asyncio.to_thread(scene.lab.kill, "temporal")
    await asyncio.to_thread(scene.lab.start, "temporal")
    outcome = await scene.end(handle)
    assert outcome.digest_verified
    await scene.proved(on=there)


async def test_a_killed_destination_qemu_leaves_the_vm_on_its_source(scene: Scene) -> None:
    here, there = scene.here(), scene.there()
    handle = await scene.start(there)
    await scene.middle(handle)
    await asyncio.to_thread(scene.lab.kill, f"{there}.qemu.{GUEST}")
    with pytest.raises(WorkflowFailureError) as failure:
        await scene.end(handle)
    assert isinstance(failure.value.cause, ApplicationError)
    assert failure.value.cause.type == "MigrationFailed"
    assert here in str(failure.value.cause), "the error does not say where the VM is"
    await scene.proved(on=here)


@pytest.mark.parametrize("end", ["source", "destination"])
async def test_a_killed_data_path_leaves_the_vm_on_its_source(scene: Scene, end: str) -> None:
    here, there = scene.here(), scene.there()
    handle = await scene.start(there)
    await scene.middle(handle)
    scene.kill_data_path(here if end == "source" else there)
    with pytest.raises(WorkflowFailureError) as failure:
        await scene.end(handle)
    assert isinstance(failure.value.cause, ApplicationError)
    assert failure.value.cause.type in ("MigrationFailed", "DataPathFailed")
    await scene.proved(on=here)
