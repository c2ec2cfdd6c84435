"""The same move from each face: command line, Python client, and Temporal's own tool. Each as a user would call it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from models import ids
from models.migration import MigrationPolicy, Progress
from tests.integration.scene import GUEST, SITE, SLOW, Scene

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

BIN = Path(sys.executable).parent


async def command(*words: str, within: float = 200) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    process = await asyncio.create_subprocess_exec(
        str(BIN / words[0]),
        *words[1:],
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "NOVACRON_LAB": "test"},
    )
    async with asyncio.timeout(within):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def start_with_temporal(to: str) -> list[str]:
    """Words of the plain start that the documentation gives."""
    words = ["temporal", "workflow", "start", "--type", "novacron.MigrateVm", "--task-queue", f"ctl.{SITE}"]
    words += ["--workflow-id", ids.migrate_vm(SITE, GUEST), "--fail-existing", "-o", "json"]
    return [*words, "--input", json.dumps({"vm": GUEST, "to": to, "policy": SLOW.model_dump()})]


async def test_the_command_line_moves_a_vm_and_ends_with_one_line_of_json(scene: Scene) -> None:
    here, there = scene.here(), scene.there()
    code, out, err = await command("novacron", "migrate", GUEST, "--to", there, "--json")
    assert code == 0, out + err
    outcome = json.loads(out.splitlines()[-1])
    assert (outcome["source"], outcome["destination"], outcome["digest_verified"]) == (here, there, True)
    await scene.proved(on=there)


async def test_the_command_line_lists_hosts_and_vms(scene: Scene) -> None:
    here = scene.here()
    code, out, err = await command("novacron", "vm", "list", "--json")
    assert code == 0, err
    assert [(vm["name"], vm["host"]) for vm in json.loads(out)["vms"]] == [(GUEST, here)]
    code, out, err = await command("novacron", "hosts", "--json")
    assert code == 0, err
    assert {host["host"] for host in json.loads(out)["hosts"]} == {"host-a", "host-b"}


async def test_the_python_client_moves_a_vm_and_shows_progress_that_never_runs_back(scene: Scene) -> None:
    there = scene.there()
    seen: list[Progress] = []
    outcome = await scene.nc.migrate(GUEST, to=there, policy=MigrationPolicy(), watch=seen.append)
    assert outcome.destination == there
    percents = [progress.percent for progress in seen]
    assert percents == sorted(percents)
    await scene.proved(on=there)


async def test_temporals_own_tool_starts_a_move_that_the_command_line_watches_and_cancels(scene: Scene) -> None:
    here, there = scene.here(), scene.there()
    code, out, err = await command(*start_with_temporal(there))
    assert code == 0, err
    run_id = json.loads(out)["runId"]
    handle = scene.nc.client.get_workflow_handle(ids.migrate_vm(SITE, GUEST))
    await scene.middle(handle)

    code, out, err = await command(*start_with_temporal(there))
    assert code == 1, f"a second start looked successful: {out}"
    code, out, err = await command("novacron", "migrate", GUEST, "--to", there, "--json")
    assert code == 3, out + err
    assert run_id in out, "the refusal does not name the run that moves the VM"

    description = await handle.describe()
    assert {pair.key.name for pair in description.typed_search_attributes} >= {
        "VmId",
        "Site",
        "HostIds",
        "Phase",
        "Progress",
    }
    _, out, _ = await command("temporal", "workflow", "metadata", "--workflow-id", ids.migrate_vm(SITE, GUEST))
    assert "moving" in out, "Temporal's tool shows no current details"

    watching = asyncio.create_task(command("novacron", "watch", GUEST))
    code, out, err = await command("novacron", "cancel", GUEST, "--reason", "the test changed its mind")
    assert code == 0, out + err
    code, out, err = await watching
    assert code == 7, out + err
    await scene.proved(on=here)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"vm": GUEST}, "to"),
        ({"vm": GUEST, "to": "host-b", "speed": 9}, "speed"),
        ({"vm": GUEST, "to": "host-b", "policy": {"lanes": 99}}, "lanes"),
        ("just a text", "text"),
    ],
)
async def test_wrong_input_to_temporals_own_tool_fails_at_once_and_names_the_field(
    scene: Scene, given: object, named: str
) -> None:
    words = start_with_temporal("host-b")
    words[words.index("--input") + 1] = json.dumps(given)
    words[2] = "execute"
    words.remove("--fail-existing")
    code, out, err = await command(*words, within=30)
    assert code != 0
    assert "InvalidInput" in out + err
    assert named in out + err
