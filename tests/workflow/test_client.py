"""The Python client and the command line against a real Temporal and a fake site."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass

import pytest

from models.host import Finding
from models.migration import Progress
from novacron import AlreadyMoving, Cancelled, InvalidInput, NotFound, NovaCron, Refused, Unreachable
from tests.workflow.fake_site import VM, FakeSite, Step, reached, temporal_binary
from workflows import search_attributes as sa

pytestmark = pytest.mark.temporal


def client(site: FakeSite) -> NovaCron:
    return NovaCron(site.client, site.name)


def release(step: Step) -> None:
    assert step.release is not None
    step.release.set()


async def test_migrate_waits_for_the_outcome_and_shows_progress(site: FakeSite) -> None:
    step = site.at(site.source, "move_vm", hold=True)
    seen: list[Progress] = []

    def watch(progress: Progress) -> None:
        seen.append(progress)
        if progress.percent == 60:  # only the heartbeat says 60; the workflow's query knows of 50
            release(step)

    async with site.working():
        outcome = await client(site).migrate(VM, to="host-b", watch=watch)
    assert outcome.destination == "host-b"
    assert any(progress.percent == 60 for progress in seen)
    percents = [progress.percent for progress in seen]
    assert percents == sorted(percents)


async def test_a_start_stamps_summary_and_search_attributes(site: FakeSite) -> None:
    async with site.working():
        move = await client(site).start(VM, "host-b", source="host-a")
        await move.result()
        description = await site.client.get_workflow_handle(move.id).describe()
        assert await description.static_summary() == "counter: host-a → host-b"
        assert "Asked by" in (await description.static_details() or "")
        assert "@" in (description.typed_search_attributes[sa.INITIATOR])


async def test_a_second_start_says_already_moving_with_the_run(site: FakeSite) -> None:
    step = site.at(site.source, "move_vm", hold=True)
    async with site.working():
        move = await client(site).start(VM, "host-b")
        await reached(step)
        with pytest.raises(AlreadyMoving) as caught:
            await client(site).start(VM, "host-c")
        assert caught.value.run_id == move.run_id
        release(step)
        await move.result()


async def test_cancel_by_vm_name_ends_the_run_as_cancelled(site: FakeSite) -> None:
    step = site.at(site.source, "move_vm", hold=True)
    async with site.working():
        move = await client(site).start(VM, "host-b")
        await reached(step)
        assert "stays on its source" in await client(site).migration(VM).cancel("maintenance")
        with pytest.raises(Cancelled, match="maintenance"):
            await move.result()


async def test_cancel_past_the_point_of_no_return_is_refused(site: FakeSite) -> None:
    step = site.at(site.source, "close_path", hold=True)
    async with site.working():
        move = await client(site).start(VM, "host-b")
        await reached(step)
        with pytest.raises(Refused, match="point of no return"):
            await move.cancel()
        release(step)
        await move.result()


async def test_cancelling_what_does_not_run_is_not_found(site: FakeSite) -> None:
    async with site.working():
        with pytest.raises(NotFound):
            await client(site).migration("nobody").cancel()


async def test_a_refusal_keeps_its_remedies(site: FakeSite) -> None:
    site.destination.findings = (Finding(id="memory", severity="blocker", what="no room", remedy="make room"),)
    async with site.working():
        with pytest.raises(Refused, match=r"no room\. make room"):
            await client(site).migrate(VM, to="host-b")


async def test_a_site_without_a_control_worker_is_told_instead_of_waiting(site: FakeSite) -> None:
    with pytest.raises(Unreachable, match=f"no control worker polls 'ctl.{site.name}'"):
        await client(site).start(VM, "host-b")


async def test_wrong_names_start_nothing(site: FakeSite) -> None:
    with pytest.raises(InvalidInput, match="to: got"):
        await client(site).start(VM, "host b")


async def test_vms_are_listed_with_their_hosts(site: FakeSite) -> None:
    async with site.working():
        assert [(host, vm.name) for host, vm in await client(site).vms()] == [("host-a", VM)]


@dataclass
class Ended:
    code: int | None
    out: str
    err: str


async def program(site: FakeSite, *command: str) -> Ended:
    """A program that finds Temporal by its environment, as users run it."""
    environment = os.environ | {
        "TEMPORAL_ADDRESS": site.client.service_client.config.target_host,
        "TEMPORAL_CONFIG_FILE": "/nonexistent",
        "NOVACRON_SITE": site.name,
    }
    process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=-1, stderr=-1)
    async with asyncio.timeout(40):
        out, err = await process.communicate()
    return Ended(process.returncode, out.decode(), err.decode())


async def novacron(site: FakeSite, *args: str) -> Ended:
    return await program(site, sys.executable, "-m", "novacron.cli", *args)


async def temporal_start(site: FakeSite, given: str) -> Ended:
    """As in docs/workflows/migrate-vm.md."""
    lock = ("--task-queue", site.queue, "--workflow-id", site.id, "--fail-existing")
    what = ("--type", "novacron.MigrateVm", "--input", given)
    return await program(site, temporal_binary(), "workflow", "start", *lock, *what)


async def test_the_command_line_moves_a_vm_and_prints_one_json_line(site: FakeSite) -> None:
    async with site.working():
        done = await novacron(site, "migrate", VM, "--to", "host-b", "--json")
        listed = await novacron(site, "vm", "list", "--json")
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out)["destination"] == "host-b"
    assert json.loads(listed.out)["vms"][0]["host"] == "host-b"


async def test_the_command_line_watches_in_plain_lines_without_a_terminal(site: FakeSite) -> None:
    async with site.working():
        done = await novacron(site, "migrate", VM, "--to", "host-b", "--watch")
    assert done.code == 0
    assert "host-a → host-b" in done.out
    assert "\x1b" not in done.out + done.err


async def test_the_command_line_has_a_code_for_each_kind_of_end(site: FakeSite) -> None:
    step = site.at(site.source, "move_vm", hold=True)
    async with site.working():
        started = await novacron(site, "migrate", VM, "--to", "host-b", "--no-wait", "--json")
        await reached(step)
        second = await novacron(site, "migrate", VM, "--to", "host-b", "--json")
        stopped = await novacron(site, "cancel", VM, "--reason", "maintenance")
        watched = await novacron(site, "watch", VM, "--json")
    assert started.code == 0
    assert json.loads(started.out)["id"] == site.id
    assert second.code == 3
    assert json.loads(started.out)["run_id"] in json.loads(second.out)["error"]["message"]
    assert stopped.code == 0
    assert watched.code == 7
    assert json.loads(watched.out.splitlines()[-1])["error"]["type"] == "Cancelled"


async def test_temporals_own_command_line_starts_a_move_and_is_told_of_a_second(site: FakeSite) -> None:
    step = site.at(site.source, "move_vm", hold=True)
    async with site.working():
        first = await temporal_start(site, '{"vm":"counter","to":"host-b"}')
        await reached(step)
        second = await temporal_start(site, '{"vm":"counter","to":"host-b"}')
        release(step)
        outcome = await client(site).migration(VM).result()
    assert (first.code, second.code) == (0, 1)
    assert "already" in second.err
    assert outcome.destination == "host-b"


async def test_wrong_input_from_temporals_own_command_line_fails_at_once(site: FakeSite) -> None:
    async with site.working():
        assert (await temporal_start(site, '{"vm":"counter","too":"host-b"}')).code == 0
        with pytest.raises(InvalidInput, match="too: unknown field"):
            await client(site).migration(VM).result()
