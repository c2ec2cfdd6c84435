"""tests/live, run as a user would, with a fake's address in its settings: it passes, and leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from clouds.errors import NotFound
from models.clouds import InstanceOrder, place_of
from tests.clouds.aws.scene import AwsCloud
from tests.clouds.scene import RUN_TAG, Cloud, Journal, Killed, boot_image, ignore, order, small_disk, token

pytestmark = pytest.mark.timeout(240)
ROOT = Path(__file__).parents[2]


def live(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "tests/live", "-q", "-p", "no:cacheprovider", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)


def asked(cloud: Cloud, folder: Path) -> tuple[str, ...]:
    """What a user gives: the place, and where its API is."""
    file = folder / "account.json"
    file.write_text(cloud.settings.model_dump_json())
    return "--live", place_of(cloud.settings), "--live-settings", str(file)


@pytest.fixture(params=["aws", "azure"])
def account(request: pytest.FixtureRequest) -> Cloud:
    found: Cloud = request.getfixturevalue(request.param)
    return found


def test_the_contract_passes_and_leaves_nothing_behind(account: Cloud, tmp_path: Path) -> None:
    done = live(*asked(account, tmp_path))
    assert done.returncode == 0, done.stdout[-3000:]
    assert f"this run was on {place_of(account.settings)}" in done.stdout
    row = next(line for line in done.stdout.splitlines() if line.startswith(account.settings.cloud))
    assert row.count("works") == 5
    assert account.faults.count(account.calls.create_instance) > 5
    assert account.calls.reboot in account.faults.calls
    assert account.adapter.instances is not None
    ran = {each.id for each in account.adapter.instances.list_instances().items}
    assert set(account.things()) <= ran
    assert {account.adapter.instances.get_instance(each).state for each in ran} <= {"terminated"}


def test_clean_removes_what_has_the_runs_tag_and_nothing_else(account: Cloud, tmp_path: Path) -> None:
    images, instances = account.adapter.image_import, account.adapter.instances
    assert images is not None
    assert instances is not None
    kept = images.import_disk(order("kept"), small_disk(), ignore).disk
    other = order("other").model_copy(update={"tags": {RUN_TAG: "live-20260101-ffffff"}})
    of_another_run = images.import_disk(other, small_disk(), ignore).disk
    tags = {RUN_TAG: "live-20260101-000000"}
    with pytest.raises(Killed):  # half of it is there, as after a worker's death
        images.import_disk(order("mine").model_copy(update={"tags": tags}), small_disk(), journal := Journal(deadly=3))
    gone, image = journal.kept[-1].disk, boot_image(account)
    wanted = InstanceOrder(name="x", image=image, size=account.size, tags=tags)
    ran = instances.create_instance(wanted, token("live", "x"))
    done = live(*asked(account, tmp_path), "--clean", "live-20260101-000000")
    assert done.returncode == 0, done.stdout + done.stderr
    assert gone in done.stdout
    assert ran.id in done.stdout
    assert gone not in account.things()
    assert {kept, of_another_run, image} <= set(account.things())
    with suppress(NotFound):
        assert instances.get_instance(ran.id).state in ("terminating", "terminated")


def test_nothing_is_collected_without_being_asked_for_and_it_says_why() -> None:
    done = live()
    assert done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED
    assert "not collected: --live CLOUD:REGION was not given" in done.stdout


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--live", "gcp:us-east1"), "gcp is not run live: an upload that was cut leaves an object"),
        (("--live", "aws"), "give --live-settings where a region is not enough"),
        (("--live", "nowhere:here"), "nowhere"),
        (("--clean", "live-20260101-000000"), "needs --live CLOUD:REGION"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is_made(words: tuple[str, ...], why: str) -> None:
    done = live(*words)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert why in done.stdout + done.stderr


def test_settings_of_another_place_are_refused(aws: AwsCloud, tmp_path: Path) -> None:
    done = live("--live", "aws:eu-west-1", *asked(aws, tmp_path)[2:])
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "which is meant?" in done.stdout + done.stderr
