"""tests/live, run as a user would, with a fake's address in its settings: it passes, and leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from models.clouds import AwsSettings, CallSettings, InstanceOrder
from tests.clouds.aws.scene import AwsCloud
from tests.clouds.scene import RUN_TAG, boot_image, ignore, order, small_disk, token

ROOT = Path(__file__).parents[2]


def live(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "tests/live", "-q", "-p", "no:cacheprovider", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)


@pytest.fixture
def account(aws: AwsCloud, tmp_path: Path) -> tuple[str, ...]:
    calls = CallSettings(attempts=3, parallel=4, poll=0.01, finish_within=30, read_timeout=20)
    settings = AwsSettings(region="us-east-1", endpoint_url=aws.server.url, calls=calls)
    (tmp_path / "account.json").write_text(settings.model_dump_json())
    return "--live", "aws:us-east-1", "--live-settings", str(tmp_path / "account.json")


def test_the_contract_passes_and_leaves_nothing_behind(aws: AwsCloud, account: tuple[str, ...]) -> None:
    done = live(*account)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "this run was on aws:us-east-1" in done.stdout
    row = next(line for line in done.stdout.splitlines() if line.startswith("aws"))
    assert row.count("works") == 5
    assert aws.faults.count("RunInstances") > 5
    assert "RebootInstances" in aws.faults.calls
    assert not aws.server.strict.snapshots
    assert not aws.server.strict.images
    states = {each.state for page in [aws.adapter.instances.list_instances()] for each in page.items}  # type: ignore[union-attr]
    assert states <= {"terminated"}


def test_clean_removes_what_has_the_runs_tag_and_nothing_else(aws: AwsCloud, account: tuple[str, ...]) -> None:
    images, instances = aws.adapter.image_import, aws.adapter.instances
    assert images is not None
    assert instances is not None
    kept = images.import_disk(order("kept"), small_disk(), ignore).disk
    other = order("other").model_copy(update={"tags": {RUN_TAG: "live-20260101-ffffff"}})
    of_another_run = images.import_disk(other, small_disk(), ignore).disk
    mine = order("mine").model_copy(update={"tags": {RUN_TAG: "live-20260101-000000"}})
    gone = images.import_disk(mine, small_disk(), ignore).disk
    image = boot_image(aws)
    tags = {RUN_TAG: "live-20260101-000000"}
    ran = instances.create_instance(InstanceOrder(name="x", image=image, size=aws.size, tags=tags), token("live", "x"))
    done = live(*account, "--clean", "live-20260101-000000")
    assert done.returncode == 0, done.stdout + done.stderr
    assert gone in done.stdout
    assert ran.id in done.stdout
    assert gone not in aws.things()
    assert {kept, of_another_run, image} <= set(aws.things())
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


def test_settings_of_another_place_are_refused(account: tuple[str, ...]) -> None:
    done = live("--live", "aws:eu-west-1", *account[2:])
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "which is meant?" in done.stdout + done.stderr
