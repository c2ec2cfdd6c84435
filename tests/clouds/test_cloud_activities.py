"""The steps of a move to a cloud, with the real SDK over HTTP: done twice they are done once, killed they go on, and
the cloud has just what the disk holds."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.cloud import CloudActivities
from clouds.disks.content import BLOCK, RawFile, content_hash
from clouds.disks.ledger import SUFFIX
from clouds.tokens import token
from models.cloud_move import (
    CheckInstance,
    DiskSent,
    EndInstance,
    MakeImage,
    PlaceQuery,
    Probe,
    RemoveThings,
    RunInstance,
    SendDisk,
    SettleSource,
    StartSource,
    StopSource,
)
from models.host import SiteSettings
from tests.clouds.aws.scene import AwsCloud
from tests.clouds.fake_source import OFF, RUNNING, Source

PLACE = "aws:us-east-1"


@pytest.fixture
def source(aws: AwsCloud, tmp_path: Path) -> Source:
    found = Source(tmp_path, aws.settings)
    found.write(0, 3, 4, 5, 9)
    found.domain.number = OFF
    return found


def order(source: Source, step: str = "1", base: str = "") -> SendDisk:
    return SendDisk(
        move="m1", place=PLACE, vm=source.ref, disk=source.image, name="counter-vda", base=base,
        token=token("vm/lab/counter", step),
    )  # fmt: skip


def send(source: Source, wanted: SendDisk, *heartbeat: Any) -> tuple[DiskSent | None, list[Any]]:
    """(the answer, or None for an attempt that failed and may be tried again; its heartbeats)."""
    env, beats = ActivityEnvironment(), list[Any]()
    env.info = dataclasses.replace(env.info, heartbeat_details=list(heartbeat))
    env.on_heartbeat = lambda *details: beats.append(details[0])
    try:
        return env.run(source.activities.send_disk, wanted), beats
    except ApplicationError as error:
        if error.non_retryable:
            raise
        return None, beats


def test_a_disk_is_sent_whole_once_and_then_what_differs(aws: AwsCloud, source: Source) -> None:
    first, _ = send(source, order(source))
    assert first is not None
    assert aws.content(first.disk) == source.content()
    assert first.bytes == 5 * BLOCK
    source.write(3, 7, what=b"new")
    source.write(4, what=b"\0")
    before = aws.sent()
    second, _ = send(source, order(source, "2", first.disk))
    assert second is not None
    assert aws.sent() - before == second.bytes == 3 * BLOCK
    assert aws.content(second.disk) == source.content()
    with RawFile(source.domain.image) as raw:
        assert second.content == second.source == content_hash(raw)


def test_nothing_changed_is_nothing_sent(aws: AwsCloud, source: Source) -> None:
    first, _ = send(source, order(source))
    assert first is not None
    again, _ = send(source, order(source, "2", first.disk))
    assert again is not None
    assert (again.disk, again.bytes) == (first.disk, 0)
    assert aws.things() == [first.disk]


def test_an_answer_that_was_lost_is_given_again(aws: AwsCloud, source: Source) -> None:
    first, _ = send(source, order(source))
    sent = aws.sent()
    source.restart()
    again, _ = send(source, order(source))
    assert first is not None
    assert again is not None
    assert (again.disk, again.content, again.bytes) == (first.disk, first.content, first.bytes)
    assert aws.sent() == sent


@pytest.mark.parametrize("heartbeat_arrived", [True, False])
def test_a_worker_that_dies_in_the_middle_leaves_one_disk(
    aws: AwsCloud, source: Source, heartbeat_arrived: bool
) -> None:
    source.write(*range(12))
    aws.faults.on("PutSnapshotBlock", "unavailable", times=1000, after=6)
    died, beats = send(source, order(source))
    assert died is None
    aws.faults.clear()
    source.restart()
    done, _ = send(source, order(source), *(beats[-1:] if heartbeat_arrived else ()))
    assert done is not None
    assert aws.things() == [done.disk]
    assert aws.content(done.disk) == source.content()
    if heartbeat_arrived:
        assert aws.sent() <= (12 + aws.settings.calls.parallel) * BLOCK


def test_a_base_that_the_ledger_does_not_know_is_sent_whole_by_order_only(aws: AwsCloud, source: Source) -> None:
    first, _ = send(source, order(source))
    assert first is not None
    Path(f"{source.domain.image}{SUFFIX}").unlink()
    with pytest.raises(ApplicationError) as caught:
        send(source, order(source, "2", first.disk))
    assert (caught.value.type, caught.value.non_retryable) == ("SourceChanged", True)


def test_an_image_is_not_read_as_if_it_were_off_while_its_vm_runs(aws: AwsCloud, source: Source) -> None:
    source.domain.number = RUNNING
    with pytest.raises(ApplicationError) as caught:
        send(source, order(source))
    assert caught.value.type == "Ambiguous"
    assert aws.things() == []


def test_a_place_without_an_account_is_named(source: Source) -> None:
    wanted = order(source).model_copy(update={"place": "aws:eu-west-1"})
    with pytest.raises(ApplicationError, match="no cloud account for aws:eu-west-1 in its settings"):
        send(source, wanted)


def test_an_order_with_an_older_token_is_turned_away(source: Source) -> None:
    newer = source.ref.model_copy(update={"token": 5})
    env = ActivityEnvironment()
    source.domain.number = RUNNING
    assert env.run(source.activities.stop_source, StopSource(vm=newer, within=5)).stopped
    with pytest.raises(ApplicationError, match="owner token 1"):
        env.run(source.activities.start_source, StartSource(vm=source.ref))
    assert source.domain.number == OFF


def test_stopped_for_good_means_no_autostart_and_back_means_as_before(source: Source) -> None:
    env = ActivityEnvironment()
    source.domain.number = RUNNING
    for _ in range(2):
        assert env.run(source.activities.stop_source, StopSource(vm=source.ref, within=5)).stopped
    assert (source.domain.number, source.domain.auto) == (OFF, 0)
    for _ in range(2):
        env.run(source.activities.start_source, StartSource(vm=source.ref, autostart=True))
    assert (source.domain.number, source.domain.auto) == (RUNNING, 1)


def test_a_guest_that_shuts_down_after_all_is_started_again(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was asked to, the move was cancelled, and only then it followed."""
    source.domain.number = RUNNING
    started: list[int] = []
    source.domain.on_change = started.append
    monkeypatch.setattr("activities.cloud_disks.time.sleep", lambda _: setattr(source.domain, "number", OFF))
    ActivityEnvironment().run(source.activities.start_source, StartSource(vm=source.ref, watch=600))
    assert (source.domain.number, started) == (RUNNING, [RUNNING])


def test_settling_leaves_nothing_of_the_move_beside_the_image(aws: AwsCloud, source: Source) -> None:
    send(source, order(source))
    settle = SettleSource(move="m1", vm=source.ref, disks=(source.image,))
    for _ in range(2):
        ActivityEnvironment().run(source.activities.settle_source, settle)
    left = sorted(path.name for path in source.folder.iterdir() if path.is_file())
    assert left == [source.domain.image.name]


@pytest.fixture
def cloud(aws: AwsCloud) -> CloudActivities:
    return CloudActivities(SiteSettings(site="lab", hosts=("host-a",), clouds=(aws.settings,)))


async def test_one_image_one_instance_and_none_when_it_is_ended(
    aws: AwsCloud, source: Source, cloud: CloudActivities
) -> None:
    sent, _ = send(source, order(source))
    assert sent is not None
    env, made = ActivityEnvironment(), token("w", "image")
    image = MakeImage(place=PLACE, name="counter-1", token=made, disks=(sent.disk,))
    images = [await env.run(cloud.make_cloud_image, image) for _ in range(2)]
    assert images[0] == images[1]
    run = RunInstance(place=PLACE, name="counter", token=token("w", "run"), image=images[0].id, size="t3.micro")
    aws.faults.on("RunInstances", "lose")
    instances = [(await env.run(cloud.run_instance, run)).id for _ in range(2)]
    assert instances == aws.server.instances() * 2
    checked = await env.run(cloud.check_instance, CheckInstance(place=PLACE, instance=instances[0]))
    assert checked.good
    for _ in range(2):  # by its token alone, as after an answer that was lost
        await env.run(cloud.end_instance, EndInstance(place=PLACE, token=run.token))
    assert aws.server.instances() == []
    for _ in range(2):
        await env.run(cloud.remove_cloud_things, RemoveThings(place=PLACE, image=images[0].id, disks=(sent.disk,)))
    assert aws.things() == []


async def test_a_check_that_never_answers_is_not_good(
    aws: AwsCloud, source: Source, cloud: CloudActivities, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent, _ = send(source, order(source))
    assert sent is not None
    monkeypatch.setattr("activities.cloud.ask", lambda probe, address: "connection refused")
    env = ActivityEnvironment()
    image = MakeImage(place=PLACE, name="counter-1", token=token("w", "image"), disks=(sent.disk,))
    run = RunInstance(
        place=PLACE, name="counter", token=token("w", "run"), image=(await env.run(cloud.make_cloud_image, image)).id,
        size="t3.micro",
    )  # fmt: skip
    instance = (await env.run(cloud.run_instance, run)).id
    wish = CheckInstance(place=PLACE, instance=instance, verify=Probe(kind="tcp", port=22, within=1))
    checked = await env.run(cloud.check_instance, wish)
    assert not checked.good
    assert "connection refused" in checked.said


async def test_a_place_is_reported_with_sizes_quotas_and_prices(aws: AwsCloud, cloud: CloudActivities) -> None:
    env = ActivityEnvironment()
    found = await env.run(cloud.place_report, PlaceQuery(place=PLACE, size="t3.micro"))
    assert found.size is not None
    assert found.warm
    assert any(quota.unit == "vCPU" for quota in found.quotas)
    assert any(price.item == "t3.micro" for price in found.prices)
    unknown = await env.run(cloud.place_report, PlaceQuery(place=PLACE, size="t3.mikro"))
    assert unknown.size is None
    assert "t3.micro" in unknown.like
