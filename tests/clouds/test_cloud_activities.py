"""The steps of a move to each cloud, with its real SDK over HTTP: done twice they are done once, killed they go on, and
the cloud has just what the disk holds. What no cloud makes a difference to is tested with one of them."""

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
from models.clouds import place_of
from models.host import SiteSettings
from tests.clouds.fake_source import OFF, RUNNING, Source
from tests.clouds.scene import Cloud

pytestmark = pytest.mark.one_cloud
ALL = pytest.mark.offers("ImageImport")
WARM = pytest.mark.offers("BlockDelta")


@pytest.fixture
def source(cloud: Cloud, tmp_path: Path) -> Source:
    found = Source(tmp_path, cloud.settings)
    found.write(0, 3, 4, 5, 9)
    found.domain.number = OFF
    return found


def order(source: Source, step: str = "1", base: str = "") -> SendDisk:
    return SendDisk(
        move="m1", place=place_of(source.cloud), vm=source.ref, disk=source.image, name="counter-vda", base=base,
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


@ALL
def test_a_disk_is_sent_whole(cloud: Cloud, source: Source) -> None:
    first, _ = send(source, order(source))
    assert first is not None
    assert cloud.content(first.disk) == source.content()
    assert first.bytes == 5 * BLOCK
    with RawFile(source.domain.image) as raw:
        assert first.content == first.source == content_hash(raw)


@WARM
def test_then_only_what_differs_is_sent(cloud: Cloud, source: Source) -> None:
    first, _ = send(source, order(source))
    assert first is not None
    source.write(3, 7, what=b"new")
    source.write(4, what=b"\0")
    before = cloud.sent()
    second, _ = send(source, order(source, "2", first.disk))
    assert second is not None
    assert cloud.sent() - before <= second.bytes == 3 * BLOCK
    assert cloud.content(second.disk) == source.content()
    with RawFile(source.domain.image) as raw:
        assert second.content == second.source == content_hash(raw)


@WARM
def test_nothing_changed_is_nothing_sent(cloud: Cloud, source: Source) -> None:
    first, _ = send(source, order(source))
    assert first is not None
    again, _ = send(source, order(source, "2", first.disk))
    assert again is not None
    assert (again.disk, again.bytes) == (first.disk, 0)
    assert cloud.things() == [first.disk]


@ALL
def test_an_answer_that_was_lost_is_given_again(cloud: Cloud, source: Source) -> None:
    first, _ = send(source, order(source))
    sent = cloud.sent()
    source.restart()
    again, _ = send(source, order(source))
    assert first is not None
    assert again is not None
    assert (again.disk, again.content, again.bytes) == (first.disk, first.content, first.bytes)
    assert cloud.sent() == sent


@ALL
@pytest.mark.parametrize("heartbeat_arrived", [True, False])
def test_a_worker_that_dies_in_the_middle_leaves_one_disk(
    cloud: Cloud, source: Source, heartbeat_arrived: bool
) -> None:
    source.write(*range(12))
    cloud.faults.on(cloud.calls.write, "unavailable", times=1000, after=6)
    died, beats = send(source, order(source))
    assert died is None
    cloud.faults.clear()
    source.restart()
    done, _ = send(source, order(source), *(beats[-1:] if heartbeat_arrived else ()))
    assert done is not None
    assert cloud.things() == [done.disk]
    assert cloud.content(done.disk) == source.content()
    if heartbeat_arrived:
        assert cloud.sent() <= (13 + cloud.settings.calls.parallel) * BLOCK, "with the format's own bytes"


def test_a_base_that_the_ledger_does_not_know_is_sent_whole_by_order_only(source: Source) -> None:
    first, _ = send(source, order(source))
    assert first is not None
    Path(f"{source.domain.image}{SUFFIX}").unlink()
    with pytest.raises(ApplicationError) as caught:
        send(source, order(source, "2", first.disk))
    assert (caught.value.type, caught.value.non_retryable) == ("SourceChanged", True)


def test_an_image_is_not_read_as_if_it_were_off_while_its_vm_runs(cloud: Cloud, source: Source) -> None:
    source.domain.number = RUNNING
    with pytest.raises(ApplicationError) as caught:
        send(source, order(source))
    assert caught.value.type == "Ambiguous"
    assert cloud.things() == []


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


def test_settling_leaves_nothing_of_the_move_beside_the_image(source: Source) -> None:
    send(source, order(source))
    settle = SettleSource(move="m1", vm=source.ref, disks=(source.image,))
    for _ in range(2):
        ActivityEnvironment().run(source.activities.settle_source, settle)
    left = sorted(path.name for path in source.folder.iterdir() if path.is_file())
    assert left == [source.domain.image.name]


@pytest.fixture
def control(cloud: Cloud) -> CloudActivities:
    return CloudActivities(SiteSettings(site="lab", hosts=("host-a",), clouds=(cloud.settings,)))


def alive(cloud: Cloud) -> list[str]:
    assert cloud.adapter.instances is not None
    gone = ("terminating", "terminated")
    return [each.id for each in cloud.adapter.instances.list_instances().items if each.state not in gone]


@ALL
async def test_one_image_one_instance_and_none_when_it_is_ended(
    cloud: Cloud, source: Source, control: CloudActivities
) -> None:
    sent, _ = send(source, order(source))
    assert sent is not None
    env, made, place = ActivityEnvironment(), token("w", "image"), place_of(cloud.settings)
    image = MakeImage(place=place, name="counter-1", token=made, disks=(sent.disk,))
    images = [await env.run(control.make_cloud_image, image) for _ in range(2)]
    assert images[0] == images[1]
    run = RunInstance(place=place, name="counter", token=token("w", "run"), image=images[0].id, size=cloud.size)
    cloud.faults.on(cloud.calls.create_instance, "lose")
    instances = [(await env.run(control.run_instance, run)).id for _ in range(2)]
    assert instances == alive(cloud) * 2
    checked = await env.run(control.check_instance, CheckInstance(place=place, instance=instances[0]))
    assert checked.good
    for _ in range(2):  # by its token alone, as after an answer that was lost
        await env.run(control.end_instance, EndInstance(place=place, token=run.token))
    assert alive(cloud) == []
    for _ in range(2):
        await env.run(control.remove_cloud_things, RemoveThings(place=place, image=images[0].id, disks=(sent.disk,)))
    assert cloud.things() == []


async def test_a_check_that_never_answers_is_not_good(
    cloud: Cloud, source: Source, control: CloudActivities, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent, _ = send(source, order(source))
    assert sent is not None
    monkeypatch.setattr("activities.cloud.ask", lambda probe, address: "connection refused")
    env, place = ActivityEnvironment(), place_of(cloud.settings)
    image = MakeImage(place=place, name="counter-1", token=token("w", "image"), disks=(sent.disk,))
    run = RunInstance(
        place=place, name="counter", token=token("w", "run"), image=(await env.run(control.make_cloud_image, image)).id,
        size=cloud.size,
    )  # fmt: skip
    instance = (await env.run(control.run_instance, run)).id
    wish = CheckInstance(place=place, instance=instance, verify=Probe(kind="tcp", port=22, within=1))
    checked = await env.run(control.check_instance, wish)
    assert not checked.good
    assert "connection refused" in checked.said


@ALL
async def test_a_place_is_reported_with_sizes_quotas_and_prices(cloud: Cloud, control: CloudActivities) -> None:
    env, place = ActivityEnvironment(), place_of(cloud.settings)
    found = await env.run(control.place_report, PlaceQuery(place=place, size=cloud.size))
    assert found.size is not None
    assert found.warm == (cloud.adapter.block_delta is not None)
    assert found.quotas
    assert [price.item for price in found.prices if price.per == "hour"] == [cloud.size]
    assert any(price.per == "gb-month" for price in found.prices)
    unknown = await env.run(control.place_report, PlaceQuery(place=place, size=f"{cloud.size[:-1]}Z"))
    assert unknown.size is None
    assert cloud.size in unknown.like
    sizes = await env.run(control.list_cloud_sizes, place)
    assert cloud.size in {size.name for size in sizes.sizes}
    assert cloud.size in {price.item for price in sizes.prices}
