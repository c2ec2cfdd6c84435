"""From cloud to cloud with the real activities: both real SDKs over HTTP, two clouds that keep every byte. Never do two
instances run, and the new one boots just what the old one held."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from temporalio.testing import WorkflowEnvironment

from activities.accounts import Accounts
from activities.cloud import CloudActivities
from activities.cloud_instances import CloudInstanceActivities
from activities.cloud_transfers import CloudTransferActivities
from clouds.capabilities import Adapter
from clouds.disks.content import BLOCK
from models.clouds import CloudSettings, place_of
from models.host import SiteSettings
from tests.clouds import conftest
from tests.clouds.aws.scene import AwsCloud
from tests.clouds.azure.scene import AzureCloud
from tests.clouds.scene import Cloud, boot_image, instance_order, token
from tests.workflow.fake_site import VM, FakeSite
from tests.workflow.test_move_between_clouds import begin, ended, failed, stands
from workflows.cloud.move_between_clouds import MoveBetweenClouds

pytestmark = pytest.mark.temporal

aws, aws_of_the_session = conftest.aws, conftest.aws_of_the_session
azure, azure_of_the_session = conftest.azure, conftest.azure_of_the_session


class Watched:
    """Instances of one cloud; whenever one is started, no other may run in either."""

    def __init__(self, scene: Scene, real: Any) -> None:
        self._scene, self._real = scene, real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def create_instance(self, *args: Any) -> Any:
        made = self._real.create_instance(*args)
        self._scene.look()
        return made

    def start_instance(self, *args: Any) -> Any:
        started = self._real.start_instance(*args)
        self._scene.look()
        return started


class Scene:
    """An instance with data, in the first of two clouds that the site has accounts for."""

    def __init__(self, site: FakeSite, source: Cloud, target: Cloud, folder: Path) -> None:
        self.source, self.target = source, target
        self.two_copies: list[list[str]] = []
        clouds = {place_of(each.settings): each for each in (source, target)}
        instances = source.adapter.instances
        assert instances is not None
        order = instance_order(source, boot_image(source), name=VM)
        self.instance = instances.create_instance(order, token("between", "run")).id
        for index in range(2, 8):
            self.write(index, b"data")
        for left in self.extra(source):
            _drop(source, left)
        for host in site.hosts.values():
            host.vms.pop(VM, None)
        settings = SiteSettings(
            site=site.name, hosts=("host-a", "host-b"), clouds=tuple(each.settings for each in clouds.values()),
            transfers=str(folder),
        )  # fmt: skip

        def opener(wanted: CloudSettings) -> Adapter:
            adapter = clouds[place_of(wanted)].adapter
            watched: Any = Watched(self, adapter.instances)
            return Adapter(
                cloud=adapter.cloud, instances=watched, image_import=adapter.image_import,
                image_export=adapter.image_export, block_delta=adapter.block_delta, catalogue=adapter.catalogue,
            )  # fmt: skip

        accounts = Accounts(settings.clouds, "the test", opener)
        site.cloud_work = CloudActivities(settings, accounts)
        site.instance_work = CloudInstanceActivities(settings, accounts)
        site.transfer_work = CloudTransferActivities(settings, accounts)
        self.wish = {"source": place_of(source.settings), "to": place_of(target.settings), "size": target.size}

    def write(self, index: int, what: bytes) -> None:
        self.source.guest_writes(self.volume(self.source, self.instance), index, what + bytes([index]))

    def volume(self, cloud: Cloud, instance: str) -> str:
        assert cloud.adapter.instances is not None
        return cloud.adapter.instances.get_instance(instance).disks[0].disk

    def running(self, cloud: Cloud) -> list[str]:
        assert cloud.adapter.instances is not None
        listed = cloud.adapter.instances.list_instances().items
        return [each.id for each in listed if each.state in ("running", "pending")]

    def look(self) -> None:
        both = [*self.running(self.source), *self.running(self.target)]
        if len(both) > 1:
            self.two_copies.append(both)

    def extra(self, cloud: Cloud) -> list[str]:
        """What a move would leave: everything but instances."""
        assert cloud.adapter.instances is not None
        known = {each.id.lower() for each in cloud.adapter.instances.list_instances().items}
        return [each for each in cloud.things() if each.lower() not in known]

    def held(self, cloud: Cloud, instance: str) -> dict[int, bytes]:
        volume = self.volume(cloud, instance)
        if isinstance(cloud, AwsCloud):
            blocks = cloud.server.strict.volumes[volume]
        else:
            blocks = cloud.content(volume)
        return {index: data for index, data in sorted(blocks.items()) if data.strip(b"\0")}


def _drop(cloud: Cloud, left: str) -> None:
    """What the instance was made of; in the order in which clouds allow it."""
    images = cloud.adapter.image_import
    assert images is not None
    if isinstance(cloud, AwsCloud):
        for image in list(cloud.server.strict.images):
            images.delete_image(image)
    if "/images/" in left:
        images.delete_image(left)
    elif not left.startswith("ami-"):
        images.delete_disk(left)


@pytest.fixture
def outward(site: FakeSite, aws: AwsCloud, azure: AzureCloud, tmp_path: Path) -> Scene:
    return Scene(site, aws, azure, tmp_path / "transfers")


@pytest.fixture
def homeward(site: FakeSite, aws: AwsCloud, azure: AzureCloud, tmp_path: Path) -> Scene:
    return Scene(site, azure, aws, tmp_path / "transfers")


async def test_an_instance_of_aws_runs_on_azure_with_the_same_bytes(site: FakeSite, outward: Scene) -> None:
    async with site.working():
        result = await ended(await begin(site, **outward.wish, keep_source_for=0))
    assert len(result.rounds) > 1, "it went warm"
    assert (outward.running(outward.source), outward.running(outward.target)) == ([], [result.instance])
    assert outward.held(outward.target, result.instance) == outward.held(outward.source, outward.instance)
    assert result.disks[0].source == result.disks[0].content
    assert (outward.extra(outward.source), outward.extra(outward.target)) == ([], [])
    assert outward.two_copies == []


async def test_a_cut_over_that_failed_brings_differences_only_the_next_time(site: FakeSite, homeward: Scene) -> None:
    source, target = homeward.source, homeward.target
    target.faults.on("RunInstances", "quota")
    async with site.working():
        move = await begin(site, **homeward.wish)
        await stands(move, "waiting", "was undone")
        assert (homeward.running(source), homeward.running(target)) == ([homeward.instance], [])
        sent = target.sent()
        homeward.write(5, b"since then")
        await move.execute_update(MoveBetweenClouds.cut_over_now)
        result = await ended(move)
    assert target.sent() - sent == BLOCK
    assert homeward.held(target, result.instance) == homeward.held(source, homeward.instance)
    assert (homeward.extra(source), homeward.extra(target)) == ([], [])
    assert homeward.two_copies == []


@pytest.mark.parametrize("call", ["StartSnapshot", "RegisterImage"])
async def test_a_cancel_leaves_one_instance_and_nothing_else(site: FakeSite, homeward: Scene, call: str) -> None:
    homeward.target.faults.on(call, "permission")
    async with site.working():
        move = await begin(site, **homeward.wish)
        if call == "RegisterImage":
            await stands(move, "waiting", "was undone")
            await move.execute_update(MoveBetweenClouds.cancel, "enough")
        error = await failed(move)
    assert error.type == ("Cancelled" if call == "RegisterImage" else "Refused")
    assert (homeward.running(homeward.source), homeward.running(homeward.target)) == ([homeward.instance], [])
    assert (homeward.extra(homeward.source), homeward.extra(homeward.target)) == ([], [])


async def test_a_roll_back_gives_the_old_instance_back(
    site: FakeSite, homeward: Scene, temporal: WorkflowEnvironment
) -> None:
    async with site.working():
        with temporal.with_time_skipping_disabled():
            move = await begin(site, **homeward.wish, mode="cold")
        await stands(move, "kept")
        await move.execute_update(MoveBetweenClouds.roll_back, "")
        result = await ended(move)
    assert result.rolled_back
    assert (homeward.running(homeward.source), homeward.running(homeward.target)) == ([homeward.instance], [])
    assert homeward.two_copies == []
