"""A VM goes to Azure, Google Cloud and Oracle Cloud, and comes home where the cloud gives disks out: the real workflows
and activities, real images, each cloud's own SDK over HTTP. What can go wrong on the way is tested with AWS."""

from __future__ import annotations

from pathlib import Path

import pytest

from activities.cloud import CloudActivities
from activities.cloud_instances import CloudInstanceActivities
from clouds.disks.content import BLOCK
from clouds.disks.images import hash_image, open_image
from clouds.kvm import arrived
from models.clouds import place_of
from models.host import SiteSettings, VmReport
from tests.clouds import conftest
from tests.clouds.fake_arrival import Arrival, qemu
from tests.clouds.fake_source import OFF, UUID, Source
from tests.clouds.scene import Cloud
from tests.workflow import test_move_from_cloud as home
from tests.workflow import test_move_to_cloud as away
from tests.workflow.fake_site import VM, FakeSite

pytestmark = pytest.mark.temporal

azure, azure_of_the_session = conftest.azure, conftest.azure_of_the_session
gcp, gcp_of_the_session = conftest.gcp, conftest.gcp_of_the_session
oci, oci_of_the_session = conftest.oci, conftest.oci_of_the_session


@pytest.fixture(params=["azure", "gcp", "oci"])
def cloud(request: pytest.FixtureRequest) -> Cloud:
    found: Cloud = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def source(site: FakeSite, cloud: Cloud, tmp_path: Path) -> Source:
    """host-a, whose VM has a real disk, and the site's cloud."""
    found = Source(tmp_path, cloud.settings)
    found.write(0, 2, 5)
    found.domain.on_change = lambda number: _becomes(site, cloud, "host-a", number)
    site.source.cloud_work = found.activities
    settings = SiteSettings(site=site.name, hosts=("host-a", "host-b"), clouds=(cloud.settings,))
    site.cloud_work, site.instance_work = CloudActivities(settings), CloudInstanceActivities(settings)
    return found


@pytest.fixture
def here(site: FakeSite, cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Arrival:
    """host-b."""
    monkeypatch.setattr(arrived, "ask_qemu", qemu)
    found = Arrival(tmp_path / "images", cloud.settings)
    found.libvirt.on_change = lambda number: _becomes(site, cloud, "host-b", number)
    site.destination.arrival_work = found.activities
    return found


def _becomes(site: FakeSite, cloud: Cloud, host: str, number: int) -> None:
    """The site sees what libvirt has; and nothing ever runs beside a running instance."""
    state = "shutoff" if number == OFF else "running"
    known = site.hosts[host].vms.get(VM) or VmReport(name=VM, uuid=UUID, state="shutoff", memory_mib=256, vcpus=1)
    site.hosts[host].vms[VM] = known.model_copy(update={"state": state})
    assert state == "shutoff" or not running(cloud), f"two copies: {running(cloud)}"


def running(cloud: Cloud) -> list[str]:
    instances = cloud.adapter.instances
    assert instances is not None
    return [each.id for each in instances.list_instances().items if each.state == "running"]


async def test_there_and_home_again(site: FakeSite, cloud: Cloud, source: Source, here: Arrival) -> None:
    place, instances = place_of(cloud.settings), cloud.adapter.instances
    assert instances is not None
    async with site.working():
        went = await away.ended(
            await away.begin(site, to=place, size=cloud.size, mode="cold", keep_source_for=0, then="keep")
        )
        assert source.domain.number == OFF
        assert running(cloud) == [went.instance]
        left = [thing for thing in cloud.things() if thing != went.instance]
        assert left == [], "image and disks are gone"
        if cloud.adapter.image_export is None:
            error = await home.failed(await home.begin(site, source=place, folder=str(here.folder)))
            assert "helper VM" in error.message
            assert running(cloud) == [went.instance]
            return
        volume = instances.get_instance(went.instance).disks[0].disk
        cloud.guest_writes(volume, 9, b"written in the cloud")
        result = await home.ended(await home.begin(site, source=place, folder=str(here.folder)))
    (path,) = result.images
    with open_image(path, "qcow2") as image:
        came = {index: image.read(index * BLOCK, BLOCK) for index in range(12)}
    wanted = {**source.content(), 9: b"written in the cloud".ljust(BLOCK, b"\0")}
    assert {index: data for index, data in came.items() if data.strip(b"\0")} == wanted
    assert result.disks[0].content == result.disks[0].source == hash_image(path, "qcow2")
    assert running(cloud) == []
    assert [thing for thing in cloud.things() if thing != went.instance] == [], "no snapshot is left"
    assert here.left() == [Path(path).name], "nothing is left beside the image"
