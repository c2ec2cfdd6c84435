"""To a cloud and home again with the real activities: real images, the real SDK over HTTP, a cloud that keeps every
byte. Only libvirt is played; on the way out the VM goes cold, on the way home it comes warm."""

from __future__ import annotations

from pathlib import Path

import pytest
from temporalio.testing import WorkflowEnvironment

from activities.cloud import CloudActivities
from activities.cloud_instances import CloudInstanceActivities
from clouds.disks.content import BLOCK
from clouds.disks.images import hash_image, open_image
from clouds.kvm import arrived
from models.host import SiteSettings, VmReport
from tests.clouds import conftest
from tests.clouds.aws.scene import AwsCloud
from tests.clouds.fake_arrival import Arrival, qemu
from tests.clouds.fake_source import OFF, UUID, Source
from tests.workflow import test_move_from_cloud as home
from tests.workflow import test_move_to_cloud as away
from tests.workflow.fake_site import VM, FakeSite
from workflows.cloud.move_from_cloud import MoveFromCloud

pytestmark = pytest.mark.temporal

aws, aws_of_the_session = conftest.aws, conftest.aws_of_the_session
PLACE = "aws:us-east-1"


@pytest.fixture
def source(site: FakeSite, aws: AwsCloud, tmp_path: Path) -> Source:
    """host-a, whose VM has a real disk, and the site's cloud."""
    found = Source(tmp_path, aws.settings)
    found.write(0, 2, 5)

    def follow(number: int) -> None:
        _becomes(site, aws, "host-a", number)

    found.domain.on_change = follow
    site.source.cloud_work = found.activities
    settings = SiteSettings(site=site.name, hosts=("host-a", "host-b"), clouds=(aws.settings,))
    site.cloud_work = CloudActivities(settings)
    site.instance_work = CloudInstanceActivities(settings)
    return found


@pytest.fixture
def here(site: FakeSite, aws: AwsCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Arrival:
    """host-b."""
    monkeypatch.setattr(arrived, "ask_qemu", qemu)
    found = Arrival(tmp_path / "images", aws.settings)
    found.libvirt.on_change = lambda number: _becomes(site, aws, "host-b", number)
    site.destination.arrival_work = found.activities
    return found


def _becomes(site: FakeSite, aws: AwsCloud, host: str, number: int) -> None:
    """The site sees what libvirt has; and nothing ever runs beside a running instance."""
    state = "shutoff" if number == OFF else "running"
    known = site.hosts[host].vms.get(VM) or VmReport(name=VM, uuid=UUID, state="shutoff", memory_mib=256, vcpus=1)
    site.hosts[host].vms[VM] = known.model_copy(update={"state": state})
    assert state == "shutoff" or not running(aws), f"two copies: {running(aws)}"


def running(aws: AwsCloud) -> list[str]:
    instances = aws.adapter.instances
    assert instances is not None
    return [each.id for each in instances.list_instances().items if each.state == "running"]


async def went(site: FakeSite, source: Source) -> str:
    """The VM runs in the cloud; its instance."""
    result = await away.ended(await away.begin(site, to=PLACE, mode="cold", keep_source_for=0))
    assert source.domain.number == OFF
    return result.instance


def volume_of(aws: AwsCloud, instance: str) -> str:
    instances = aws.adapter.instances
    assert instances is not None
    return instances.get_instance(instance).disks[0].disk


async def test_there_and_back_with_what_was_written_there(
    site: FakeSite, source: Source, aws: AwsCloud, here: Arrival
) -> None:
    async with site.working():
        instance = await went(site, source)
        aws.guest_writes(volume_of(aws, instance), 9, b"written in the cloud")
        result = await home.ended(await home.begin(site, source=PLACE, folder=str(here.folder)))
    (path,) = result.images
    held = aws.server.strict.volumes[volume_of(aws, instance)]
    with open_image(path, "qcow2") as image:
        came = {index: image.read(index * BLOCK, BLOCK) for index in range(12)}
    assert {index: data for index, data in came.items() if data.strip(b"\0")} == {
        index: data for index, data in held.items() if data.strip(b"\0")
    }
    assert came[9].startswith(b"written in the cloud")
    assert came[2].startswith(b"data")
    assert result.disks[0].content == result.disks[0].source == hash_image(path, "qcow2")
    assert len(result.rounds) > 1, "it came warm"
    assert running(aws) == []
    assert aws.things() == [instance], "no snapshot is left, and the instance is kept"
    assert here.left() == [Path(path).name], "nothing is left beside the image"
    record = site.leases.records[UUID]
    assert (record.host, record.operation) == ("host-b", "")


async def test_a_landing_that_failed_takes_back_what_the_guest_wrote_here(
    site: FakeSite, source: Source, aws: AwsCloud, here: Arrival, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = ["connection refused"] * 5
    monkeypatch.setattr("activities.cloud_instances.ask", lambda probe, address: answers.pop(0))
    here.libvirt.on_start = lambda images: here.write(images[0], 11, b"written here")
    verify = {"kind": "tcp", "address": "10.0.0.7", "within": 1}
    async with site.working():
        instance = await went(site, source)
        move = await home.begin(site, source=PLACE, folder=str(here.folder), verify=verify)
        await home.stands(move, "waiting", "was undone")
        assert running(aws) == [instance]
        reads = aws.faults.count("GetSnapshotBlock")
        aws.guest_writes(volume_of(aws, instance), 4, b"since then")
        answers[:] = [""]
        here.libvirt.on_start = lambda images: None
        await move.execute_update(MoveFromCloud.cut_over_now)
        result = await home.ended(move)
    assert aws.faults.count("GetSnapshotBlock") - reads == 1, "the difference, and nothing else"
    assert result.disks[0].content == hash_image(result.images[0], "qcow2")
    assert running(aws) == []
    assert aws.things() == [instance]


async def test_a_roll_back_gives_the_instance_back(
    site: FakeSite, source: Source, aws: AwsCloud, here: Arrival, temporal: WorkflowEnvironment
) -> None:
    async with site.working():
        instance = await went(site, source)
        with temporal.with_time_skipping_disabled():
            move = await home.begin(site, source=PLACE, folder=str(here.folder))
        await home.stands(move, "kept")
        assert running(aws) == []
        await move.execute_update(MoveFromCloud.roll_back, "")
        result = await home.ended(move)
    assert result.rolled_back
    assert running(aws) == [instance]
    assert here.libvirt.domain is not None
    assert here.libvirt.domain.number == OFF
