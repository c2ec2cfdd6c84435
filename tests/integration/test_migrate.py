"""The main job on real parts: every case ends with exactly one running copy and nothing left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError

from models.datapath import TlsFiles
from models.migration import MigrationPolicy
from novacron import watch
from tests.integration.scene import Scene
from workers.lab.certificates import Authority

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]


def cause(error: WorkflowFailureError) -> ApplicationError:
    """The workflow's own failure."""
    assert isinstance(error.cause, ApplicationError), f"the workflow ended otherwise: {error.cause!r}"
    return error.cause


async def test_a_vm_moves_to_the_other_host_and_back(scene: Scene) -> None:
    for _ in range(2):
        here, there = scene.here(), scene.there()
        outcome = await scene.end(await scene.start(there, MigrationPolicy()))
        assert (outcome.source, outcome.destination) == (here, there)
        assert outcome.digest_verified
        assert outcome.digest
        assert 0 < outcome.wire_bytes < outcome.raw_bytes / 2, "the batches are not compressed"
        assert not outcome.notes
        await scene.proved(on=there)


async def test_a_second_start_is_told_who_moves_the_vm_already(scene: Scene) -> None:
    there = scene.there()
    first = await scene.start(there)
    with pytest.raises(WorkflowAlreadyStartedError) as told:
        await scene.start(there)
    assert told.value.run_id == first.first_execution_run_id
    await scene.end(first)
    await scene.proved(on=there)


async def test_a_cancel_in_pre_copy_leaves_the_vm_where_it_is(scene: Scene) -> None:
    here = scene.here()
    handle = await scene.start(scene.there())
    await scene.middle(handle)
    answer = await handle.execute_update("cancel", "the test wants it back")
    assert "stays on its source" in str(answer)
    with pytest.raises(WorkflowFailureError) as failure:
        await scene.end(handle)
    assert cause(failure.value).type == "Cancelled"
    assert "the test wants it back" in str(cause(failure.value))
    await scene.proved(on=here)


async def test_temporals_own_cancel_ends_as_canceled_with_the_vm_where_it_is(scene: Scene) -> None:
    here = scene.here()
    handle = await scene.start(scene.there())
    await scene.middle(handle)
    await handle.cancel()
    with pytest.raises(WorkflowFailureError):
        await scene.end(handle)
    description = await handle.describe()
    assert description.status is not None
    assert description.status.name == "CANCELED"
    await scene.proved(on=here)


async def test_a_link_cut_for_ten_seconds_in_pre_copy_only_holds_the_move_up(scene: Scene) -> None:
    there = scene.there()
    handle = await scene.start(there)
    await scene.middle(handle)
    scene.lab.cut()
    await asyncio.sleep(10)  # the case itself: ten seconds without a link
    scene.lab.heal()
    outcome = await scene.end(handle)
    assert outcome.redials > 0, "the cut was not noticed: nothing was tested"
    assert outcome.digest_verified
    await scene.proved(on=there)


async def test_a_cancel_while_the_link_is_cut_ends_the_move_without_waiting_for_the_link(scene: Scene) -> None:
    here = scene.here()
    handle = await scene.start(scene.there())
    await scene.middle(handle)
    scene.lab.cut()
    async for progress in watch.follow(scene.nc.client, handle):
        if "link lost" in progress.note:
            break
    await handle.execute_update("cancel", "the link is gone")
    with pytest.raises(WorkflowFailureError) as failure:
        await scene.end(handle, within=90)
    assert cause(failure.value).type == "Cancelled"
    scene.lab.heal()
    await scene.proved(on=here)


async def test_a_full_destination_is_refused_before_anything_starts(scene: Scene) -> None:
    here, there = scene.here(), scene.there()
    settings = scene.lab.settings.host(there) / "worker.json"
    original = settings.read_text()
    settings.write_text(original.replace('"memory_reserve_mib": 256', '"memory_reserve_mib": 99999999'))
    try:
        await asyncio.to_thread(scene.lab.restart_worker, there)
        handle = await scene.start(there)
        with pytest.raises(WorkflowFailureError) as failure:
            await scene.end(handle)
    finally:
        settings.write_text(original)
        await asyncio.to_thread(scene.lab.restart_worker, there)
    assert cause(failure.value).type == "Refused"
    assert "memory" in str(cause(failure.value))
    events = [event async for event in handle.fetch_history_events()]
    started = {
        event.activity_task_scheduled_event_attributes.activity_type.name
        for event in events
        if event.HasField("activity_task_scheduled_event_attributes")
    }
    assert "novacron.open_path" not in started
    await scene.proved(on=here)


@contextmanager
def presented_by(host_tls: TlsFiles, other: TlsFiles) -> Iterator[None]:
    """The host presents another's certificate until the end."""
    kept = {path: Path(path).read_bytes() for path in (host_tls.certificate, host_tls.key)}
    Path(host_tls.certificate).write_bytes(Path(other.certificate).read_bytes())
    Path(host_tls.key).write_bytes(Path(other.key).read_bytes())
    try:
        yield
    finally:
        for path, content in kept.items():
            Path(path).write_bytes(content)


@pytest.mark.parametrize("wrong", ["of a stranger's authority", "of another host"])
async def test_a_wrong_certificate_is_refused_and_the_vm_stays(scene: Scene, tmp_path: Path, wrong: str) -> None:
    here, there = scene.here(), scene.there()
    own = Authority(scene.lab.settings.tls_folder)
    other = own.issue("host-d") if wrong == "of another host" else Authority(tmp_path).issue(there)
    with presented_by(own.issue(there), other), pytest.raises(WorkflowFailureError) as failure:
        await scene.end(await scene.start(there))
    assert cause(failure.value).type == "Refused"
    assert f"[certificate] the data path certificate of {there}" in str(cause(failure.value))
    await scene.proved(on=here)
