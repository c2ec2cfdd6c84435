"""From cloud to cloud with the real activities: both real SDKs over HTTP, two clouds that keep every byte. Never do two
instances run, and the new one boots just what the old one held. Cold in the direction in which the fake is slow."""

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
from tests.clouds.scene import Cloud, Killed, boot_image, instance_order, token
from tests.workflow.fake_site import VM, FakeSite
from tests.workflow.test_move_between_clouds import begin, ended, failed, stands
from workflows.cloud.move_between_clouds import MoveBetweenClouds

pytestmark = pytest.mark.temporal

aws, aws_of_the_session = conftest.aws, conftest.aws_of_the_session
azure, azure_of_the_session = conftest.azure, conftest.azure_of_the_session


class Watched:
    """A capability of one cloud. After every change no two instances run; and the worker that made it for the first
    time dies before anybody has heard of it, if the scene is deadly."""

    def __init__(self, scene: Scene, place: str, real: Any) -> None:
        self._scene, self._place, self._real = scene, place, real

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._real, name)
        if not name.startswith(CHANGES):
            return found

        def act(*args: Any) -> Any:
            done = found(*args)
            self._scene.look()
            self._scene.die(f"{name} at {self._place}")
            return done

        return act


CHANGES = ("create_", "import_", "start_", "stop_", "terminate_", "delete_")


class Scene:
    """An instance with data, in the first of two clouds that the site has accounts for."""

    def __init__(self, site: FakeSite, source: Cloud, target: Cloud, folder: Path) -> None:
        self.source, self.target = source, target
        self.two_copies: list[list[str]] = []
        self.deadly = False
        self.died: set[str] = set()
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

            def watched(real: Any) -> Any:
                return Watched(self, place_of(wanted), real)

            return Adapter(
                cloud=adapter.cloud, instances=watched(adapter.instances), catalogue=adapter.catalogue,
                image_import=watched(adapter.image_import), image_export=watched(adapter.image_export),
                block_delta=watched(adapter.block_delta),
            )  # fmt: skip

        accounts = Accounts(settings.clouds, "the test", opener)
        site.cloud_work = CloudActivities(settings, accounts)
        site.instance_work = CloudInstanceActivities(settings, accounts)
        site.transfer_work = CloudTransferActivities(settings, accounts)
        self.wish = {
            "source": place_of(source.settings),
            "to": place_of(target.settings),
            "size": target.size,
            "rounds": 1,
        }

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

    def die(self, step: str) -> None:
        if self.deadly and step not in self.died:
            self.died.add(step)
            raise Killed(step)

    def extra(self, cloud: Cloud) -> list[str]:
        """What a move would leave: everything but instances."""
        assert cloud.adapter.instances is not None
        known = {each.id.lower() for each in cloud.adapter.instances.list_instances().items}
        return [each for each in cloud.things() if each.lower() not in known]

    def held(self, cloud: Cloud, instance: str) -> dict[int, bytes]:
        volume = self.volume(cloud, instance)
        blocks = cloud.server.strict.volumes[volume] if isinstance(cloud, AwsCloud) else cloud.content(volume)
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
        result = await ended(await begin(site, **outward.wish, mode="cold", keep_source_for=0))
    assert (outward.running(outward.source), outward.running(outward.target)) == ([], [result.instance])
    held = outward.held(outward.source, outward.instance)
    assert set(held) >= set(range(2, 8))
    assert outward.held(outward.target, result.instance) == held
    assert result.disks[0].source == result.disks[0].content
    assert (outward.extra(outward.source), outward.extra(outward.target)) == ([], [])
    assert outward.two_copies == []


async def test_a_worker_that_dies_after_every_step_leaves_one_instance_and_nothing_else(
    site: FakeSite, homeward: Scene
) -> None:
    homeward.deadly = True
    async with site.working():
        move = await begin(site, **homeward.wish, cut_over="manual", keep_source_for=10, then="remove")
        await stands(move, "waiting")
        homeward.write(6, b"since then")
        seen = await move.query(MoveBetweenClouds.standing)
        assert len(seen.rounds) > 1, "it goes warm"
        await move.execute_update(MoveBetweenClouds.cut_over_now)
        result = await ended(move)
    here, there = homeward.wish["source"], homeward.wish["to"]
    assert homeward.died >= {
        *(f"{step} at {here}" for step in ("create_snapshot", "stop_instance", "terminate_instance", "delete_disk")),
        *(f"{step} at {there}" for step in ("import_disk", "import_delta", "create_image", "create_instance")),
        *(f"{step} at {there}" for step in ("delete_image", "delete_disk")),
    }
    assert result.source_terminated
    assert homeward.running(homeward.target) == homeward.target.things() == [result.instance]
    assert homeward.source.things() == []
    assert homeward.held(homeward.target, result.instance)[6].startswith(b"since then")
    assert homeward.two_copies == []


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


async def test_a_cancel_leaves_one_instance_and_nothing_else(site: FakeSite, homeward: Scene) -> None:
    homeward.target.faults.on("RegisterImage", "permission")
    async with site.working():
        move = await begin(site, **homeward.wish)
        await stands(move, "waiting", "was undone")
        await move.execute_update(MoveBetweenClouds.cancel, "enough")
        assert (await failed(move)).type == "Cancelled"
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
