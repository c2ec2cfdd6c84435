"""What MigrateVm refuses, before anything has started: each says the field or host, and what to do."""

from __future__ import annotations

import pytest

from models.host import Finding
from tests.workflow.fake_site import VM, FakeSite, failure, vm

pytestmark = pytest.mark.temporal

QUESTIONS = ("look_for_vm", "inspect_vm", "admit_vm")


def untouched(site: FakeSite) -> bool:
    return site.left_open() == [] and all(entry.endswith(QUESTIONS) for entry in site.journal)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ("counter", ["input: got 'counter'", "JSON object"]),
        ({"vm": VM}, ["to: missing"]),
        ({"vm": VM, "to": "host-b", "polcy": {}}, ["polcy: unknown field", "did you mean 'policy'?"]),
        ({"vm": VM, "to": "host-b", "policy": {"lanes": "many"}}, ["policy.lanes: got 'many'", "integer"]),
        ({"vm": VM, "to": "host-x"}, ["to: 'host-x' is not a host", "host-a, host-b, host-c"]),
        ({"vm": VM, "to": "host-b", "source": "host-x"}, ["source: 'host-x' is not a host"]),
    ],
)
async def test_wrong_input_fails_at_once_and_names_the_field(site: FakeSite, raw: object, words: list[str]) -> None:
    async with site.working():
        error = await site.failure(raw)
    assert error.type == "InvalidInput"
    assert error.non_retryable
    for word in words:
        assert word in error.message
    assert untouched(site)


async def test_a_start_without_input_fails_at_once(site: FakeSite) -> None:
    async with site.working():
        move = await site.client.start_workflow("novacron.MigrateVm", id=site.id, task_queue=site.queue)
        assert "input: got nothing" in (await failure(move)).message


@pytest.mark.parametrize("wrong", ["my-move", "vm/lab", "vm/lab/other"])
async def test_another_workflow_id_is_refused_with_the_right_one(site: FakeSite, wrong: str) -> None:
    async with site.working():
        error = await site.failure(id=f"{wrong}-{site.name}")
    assert error.type == "InvalidInput"
    assert f"start it again with '{site.id}'" in error.message


async def test_an_id_of_another_site_is_refused_with_the_right_ones(site: FakeSite) -> None:
    async with site.working():
        error = await site.failure(id=f"vm/not-{site.name}/{VM}")
    assert error.type == "InvalidInput"
    assert f"on 'ctl.not-{site.name}', or with the id '{site.id}'" in error.message


async def test_a_vm_that_is_already_there_is_refused(site: FakeSite) -> None:
    site.switch(VM, "host-a", "host-b")
    async with site.working():
        error = await site.failure()
    assert (error.type, untouched(site)) == ("Refused", True)
    assert "already on host-b" in error.message


async def test_a_vm_nobody_has_is_not_found_and_silent_hosts_are_named(site: FakeSite) -> None:
    site.source.vms.clear()
    site.seen_polling.discard("host-c")
    async with site.working():
        error = await site.failure()
    assert error.type == "NotFound"
    assert "did not answer: host-c" in error.message


async def test_a_vm_that_is_not_on_the_named_source_is_not_found(site: FakeSite) -> None:
    async with site.working():
        error = await site.failure({"vm": VM, "to": "host-b", "source": "host-c"})
    assert (error.type, untouched(site)) == ("NotFound", True)


async def test_a_vm_that_runs_twice_is_ambiguous(site: FakeSite) -> None:
    site.hosts["host-c"].vms[VM] = vm()
    async with site.working():
        error = await site.failure()
    assert (error.type, untouched(site)) == ("Ambiguous", True)
    assert "host-a and host-c" in error.message


async def test_a_vm_that_is_only_defined_is_refused(site: FakeSite) -> None:
    site.source.vms[VM] = vm("shutoff")
    async with site.working():
        error = await site.failure()
    assert error.type == "Refused"
    assert "defined on host-a" in error.message


@pytest.mark.parametrize(("there", "words"), [(vm("paused"), "paused on host-a"), (vm(job=True), "already runs a job")])
async def test_a_vm_that_cannot_move_now_is_refused(site: FakeSite, there: object, words: str) -> None:
    assert isinstance(there, type(vm()))
    site.source.vms[VM] = there
    async with site.working():
        error = await site.failure()
    assert (error.type, untouched(site)) == ("Refused", True)
    assert words in error.message


async def test_every_blocker_is_listed_with_its_remedy(site: FakeSite) -> None:
    site.destination.findings = (
        Finding(id="memory", severity="blocker", what="64 MiB free, 256 needed", remedy="Free some"),
        Finding(id="cpu", severity="blocker", what="no avx2", remedy="Lower the CPU model"),
        Finding(id="old", severity="warning", what="older", remedy="none"),
    )
    async with site.working():
        error = await site.failure()
    assert (error.type, untouched(site)) == ("Refused", True)
    assert "[memory] 64 MiB free, 256 needed. Free some; [cpu] no avx2. Lower the CPU model" in error.message


@pytest.mark.parametrize("dead", ["host-a", "host-b"])
async def test_a_host_without_a_worker_is_told_before_anything_starts(site: FakeSite, dead: str) -> None:
    site.seen_polling.discard(dead)
    async with site.working():
        error = await site.failure({"vm": VM, "to": "host-b", "source": "host-a"})
    assert (error.type, untouched(site)) == ("HostUnavailable", True)
    assert f"{dead}: no worker polls 'host.{site.name}.{dead}'" in error.message


async def test_a_destination_that_died_a_moment_ago_is_found_out_by_its_silence(site: FakeSite) -> None:
    async with site.working():
        await site.kill(site.destination)
        error = await site.failure({"vm": VM, "to": "host-b", "source": "host-a"})
    assert (error.type, untouched(site)) == ("HostUnavailable", True)
    assert "did not answer within the deadline" in error.message
