"""novacron.MoveToCloud with the real activities: real images, the real SDK over HTTP, a cloud that keeps every byte.

Only libvirt is played, so the VM is copied cold; rounds on a real libvirt are shown by tests/unit/kvm and on the lab.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from activities.cloud import CloudActivities
from activities.cloud_bases import CloudBaseActivities
from clouds.disks.content import BLOCK
from models.host import SiteSettings
from tests.clouds import conftest
from tests.clouds.aws.scene import AwsCloud
from tests.clouds.fake_source import OFF, Source
from tests.clouds.test_cloud_bases import Vm
from tests.workflow.fake_site import VM, FakeSite
from tests.workflow.test_move_to_cloud import begin, ended, failed, stands
from workflows.cloud.move_to_cloud import MoveToCloud

pytestmark = pytest.mark.temporal

aws, aws_of_the_session = conftest.aws, conftest.aws_of_the_session
WISH = {"to": "aws:us-east-1", "mode": "cold"}


@pytest.fixture
def source(site: FakeSite, aws: AwsCloud, tmp_path: Path) -> Source:
    """The site's VM has a real disk, and the site a cloud."""
    found = Source(tmp_path, aws.settings)
    found.write(0, 2, 5)

    def follow(number: int) -> None:
        state = "shutoff" if number == OFF else "running"
        site.source.vms[VM] = site.source.vms[VM].model_copy(update={"state": state})
        running = aws.server.instances()
        assert state == "shutoff" or not running, f"two copies: {running}"

    found.domain.on_change = follow
    site.source.cloud_work = found.activities
    site.source.base_work = CloudBaseActivities(found.settings, opener=found.opener)
    settings = SiteSettings(site=site.name, hosts=("host-a",), clouds=(aws.settings,))
    site.cloud_work = CloudActivities(settings)
    return found


async def test_the_instance_boots_what_the_disk_held_when_its_vm_had_stopped(
    site: FakeSite,
    source: Source,
    aws: AwsCloud,
) -> None:
    source.domain.shut_down_writes = lambda: source.write(7, what=b"last words")
    async with site.working():
        result = await ended(await begin(site, **WISH))
    assert sorted(aws.things()) == sorted([*result.kept_bases, result.instance]), "image and other snapshots are gone"
    (disk,) = aws.adapter.instances.get_instance(result.instance).disks  # type: ignore[union-attr]
    held = aws.server.strict.volumes[disk.disk]
    assert {index: data for index, data in held.items() if data.strip(b"\0")} == source.content()
    assert 7 in held
    assert [path.name for path in source.folder.iterdir() if path.is_file()] == [source.domain.image.name]


@pytest.mark.parametrize("call", ["RegisterImage", "RunInstances"])
async def test_a_quota_that_shows_at_the_cut_over_gives_the_vm_back_and_sends_little_the_next_time(
    site: FakeSite,
    source: Source,
    aws: AwsCloud,
    call: str,
) -> None:
    aws.faults.on(call, "quota")
    async with site.working():
        move = await begin(site, **WISH)
        await stands(move, "waiting", "was undone")
        assert source.domain.number != OFF
        assert aws.server.instances() == []
        sent = aws.sent()
        source.write(9, what=b"since then")
        await move.execute_update(MoveToCloud.cut_over_now)
        result = await ended(move)
    assert aws.sent() - sent == len(source.content()[9])
    assert sorted(aws.things()) == sorted([*result.kept_bases, result.instance])


async def test_the_second_vm_of_a_base_sends_under_15_percent_and_leaves_the_base_alone(
    site: FakeSite, source: Source, aws: AwsCloud, tmp_path: Path
) -> None:
    """The first one was moved before: what it left is a base now. The second is its clone, which wrote since."""
    source.write(*range(10))
    first = tmp_path / "first"
    first.mkdir()
    elder = Vm(Source(first, aws.settings, vm="elder"), "move-elder")
    elder.source.domain.image.write_bytes(source.domain.image.read_bytes())
    elder.source.domain.number = OFF
    base = elder.send()
    assert elder.keep(base).disks == (base.disk,)
    elder.settle()
    source.write(11, what=b"its own")
    whole, sent = len(source.content()) * BLOCK, aws.sent()
    async with site.working():
        result = await ended(await begin(site, **WISH))
    assert aws.sent() - sent == result.sent_bytes == BLOCK < 0.15 * whole
    assert result.saved_bytes == whole - BLOCK
    assert result.disks[0].source == result.disks[0].content
    assert sorted(aws.things()) == sorted([base.disk, result.instance]), "what was made goes, what it began from stays"
    (disk,) = aws.adapter.instances.get_instance(result.instance).disks  # type: ignore[union-attr]
    held = aws.server.strict.volumes[disk.disk]
    assert {index: data for index, data in held.items() if data.strip(b"\0")} == source.content()


async def test_what_the_cloud_refuses_at_once_leaves_the_vm_running(
    site: FakeSite,
    source: Source,
    aws: AwsCloud,
) -> None:
    aws.faults.on("DescribeInstanceTypes", "permission")
    async with site.working():
        error = await failed(await begin(site, **WISH))
    assert error.type == "Refused"
    assert source.domain.number != OFF
    assert aws.things() == []
