"""The regional cache as a move uses it, with the real SDK over HTTP: the second VM of a base sends its difference, and
whatever is wrong with a base costs bytes, never a wrong disk."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError, CancelledError
from temporalio.testing import ActivityEnvironment

from activities.cloud_bases import CloudBaseActivities
from activities.cloud_cache import CloudCacheActivities
from clouds.cache import TAG
from clouds.cache.index import ROOT
from clouds.disks.content import BLOCK, RawFile, content_hash
from clouds.disks.ledger import SUFFIX
from clouds.tokens import token
from models.cloud_cache import BasesKept, CacheReport, CacheRequest, KeepBases, WeighBases
from models.cloud_move import DiskSent, RoundOrder, SendDisk, SettleSource
from models.clouds import ImageOrder, place_of
from models.host import SiteSettings
from tests.clouds.aws.scene import AwsCloud
from tests.clouds.azure.scene import AzureCloud
from tests.clouds.fake_source import OFF, RUNNING, Source, accounts
from tests.clouds.scene import Cloud

PLACE = "aws:us-east-1"
BLOCKS = 28
FILLED = range(20)
"""What all VMs of the base have in common: packages."""
DIFFERENT = 3
"""Blocks in which the second VM is not as the first: one that it changed, one that either has for itself."""


@dataclasses.dataclass
class Vm:
    """One that is off, and on its way."""

    source: Source
    move: str

    @property
    def place(self) -> str:
        return place_of(self.source.cloud)

    def order(self, step: str = "1", base: str = "", cached: bool = True) -> SendDisk:
        return SendDisk(
            move=self.move, place=self.place, vm=self.source.ref, disk=self.source.image, name=f"{self.source.vm}-vda",
            base=base, token=token(f"vm/lab/{self.source.vm}", step), cached=cached,
        )  # fmt: skip

    def send(self, wanted: SendDisk | None = None, *heartbeat: Any) -> DiskSent:
        env = ActivityEnvironment()
        env.info = dataclasses.replace(env.info, heartbeat_details=list(heartbeat))
        self.beats: list[Any] = []
        env.on_heartbeat = lambda *details: self.beats.append(details[0])
        return env.run(self.source.activities.send_disk, wanted or self.order())

    @property
    def bases(self) -> CloudBaseActivities:
        settings = self.source.settings
        return CloudBaseActivities(settings, opener=self.source.opener, accounts=accounts(settings.clouds))

    def keep(self, sent: DiskSent) -> BasesKept:
        wanted = KeepBases(
            move=self.move, place=self.place, vm=self.source.ref, disks=(self.source.image,), sent=(sent,)
        )  # fmt: skip
        return ActivityEnvironment().run(self.bases.keep_bases, wanted)

    def settle(self) -> None:
        wanted = SettleSource(move=self.move, vm=self.source.ref, disks=(self.source.image,), place=self.place)
        ActivityEnvironment().run(self.source.activities.settle_source, wanted)

    @property
    def hash(self) -> str:
        with RawFile(self.source.domain.image) as raw:
            return content_hash(raw)


def vm_of_the_base(cloud: Cloud, folder: Path, name: str, *own: int) -> Vm:
    """Its disk: the base, and blocks of its own."""
    folder = folder / name
    folder.mkdir()
    impatient = cloud.settings.model_copy(update={"calls": cloud.settings.calls.model_copy(update={"attempts": 1})})
    source = Source(folder, impatient, vm=name, blocks=BLOCKS)
    with RawFile(source.domain.image, writable=True) as raw:
        for index in FILLED:
            raw.write(index * BLOCK, Random(index).randbytes(4096))
        for index in own:
            raw.write(index * BLOCK, Random(f"{name}/{index}").randbytes(4096))
    source.domain.number = OFF
    return Vm(source, f"move-{name}")


@pytest.fixture
def first(aws: AwsCloud, tmp_path: Path) -> Vm:
    return vm_of_the_base(aws, tmp_path, "web-1", 25)


@pytest.fixture
def second(aws: AwsCloud, tmp_path: Path) -> Vm:
    return vm_of_the_base(aws, tmp_path, "web-2", 7, 22)


@pytest.fixture
def base(first: Vm) -> DiskSent:
    """What the first VM left behind."""
    sent = first.send()
    assert first.keep(sent).disks == (sent.disk,)
    first.settle()
    return sent


async def cache(aws: AwsCloud, **wishes: Any) -> CacheReport:
    settings = SiteSettings(site="lab", hosts=("host-a",), clouds=(aws.settings,))
    wanted = CacheRequest(place=PLACE, **wishes)
    return await ActivityEnvironment().run(
        CloudCacheActivities(settings, accounts(settings.clouds)).look_at_cache, wanted
    )


def test_a_second_vm_of_the_same_base_sends_under_15_percent_of_its_bytes(
    aws: AwsCloud, base: DiskSent, second: Vm
) -> None:
    before = aws.sent()
    sent = second.send()
    whole = len(second.source.content()) * BLOCK
    over_the_wire = aws.sent() - before
    print(f"\nwhole {whole / 2**20:.1f} MiB, sent {over_the_wire / 2**20:.1f} MiB: {over_the_wire / whole:.1%}")
    assert over_the_wire == sent.bytes == DIFFERENT * BLOCK
    assert over_the_wire < 0.15 * whole
    assert sent.saved == whole - sent.bytes
    assert sent.origin == base.disk
    assert sent.cache.startswith("hit")
    assert aws.content(sent.disk) == second.source.content()
    assert sent.content == sent.source == second.hash


def test_its_next_rounds_are_differences_of_its_own_disk(aws: AwsCloud, base: DiskSent, second: Vm) -> None:
    sent = second.send()
    second.source.write(12, what=b"since then")
    again = second.send(second.order("2", sent.disk))
    assert again.bytes == BLOCK
    assert (again.origin, again.saved) == (base.disk, sent.saved)
    assert aws.content(again.disk) == second.source.content()


def test_the_first_round_of_a_running_vm_starts_from_a_base_and_a_round_that_was_lost_does_so_again(
    aws: AwsCloud, base: DiskSent, second: Vm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """QEMU's part is played: a moment is a copy of the image."""
    second.source.domain.number = RUNNING
    moment = second.source.domain.image.with_suffix(".moment")

    @contextmanager
    def shown(*_: Any) -> Iterator[RawFile]:
        with RawFile(moment) as raw:
            yield raw

    def wanted(number: int, before: str = "") -> SendDisk:
        moment.write_bytes(second.source.domain.image.read_bytes())
        order = RoundOrder(move=second.move, vm=second.source.ref, number=number, disks=(second.source.image,))
        return second.order(str(number), before).model_copy(update={"round": order})

    monkeypatch.setattr("activities.cloud_disks.backup.snapshot", shown)
    monkeypatch.setattr("activities.cloud_disks.backup.is_open", lambda *_: False)
    with pytest.raises(ApplicationError, match="is over"):
        second.send(wanted(1))
    monkeypatch.setattr("activities.cloud_disks.backup.is_open", lambda *_: True)
    sent = second.send(wanted(2))
    assert (sent.origin, sent.bytes, sent.source) == (base.disk, DIFFERENT * BLOCK, "")
    assert aws.content(sent.disk) == second.source.content()
    second.source.write(13, what=b"meanwhile")
    again = second.send(wanted(3, sent.disk))
    assert again.bytes == BLOCK
    second.source.domain.number = OFF
    last = second.send(second.order("4", again.disk))
    assert (last.bytes, last.source) == (0, second.hash)
    assert aws.content(last.disk) == second.source.content()


def test_a_twin_is_a_disk_of_its_own_and_never_the_base_itself(aws: AwsCloud, base: DiskSent, tmp_path: Path) -> None:
    """Its move removes what it made in the end."""
    twin = vm_of_the_base(aws, tmp_path, "twin")
    twin.source.domain.image.write_bytes((tmp_path / "web-1" / "web-1.raw").read_bytes())
    sent = twin.send()
    assert (sent.bytes, sent.content) == (0, base.content)
    assert sent.disk != base.disk
    assert aws.content(sent.disk) == twin.source.content()


def test_a_base_that_saves_too_little_is_left_alone(aws: AwsCloud, base: DiskSent, tmp_path: Path) -> None:
    other = vm_of_the_base(aws, tmp_path, "db", *FILLED)
    sent = other.send()
    assert (sent.origin, sent.saved) == ("", 0)
    assert sent.cache.startswith("miss: of 1 bases the nearest")
    assert aws.content(sent.disk) == other.source.content()


def test_blocks_that_lie_about_the_rest_are_found_out_before_anything_is_sent(
    aws: AwsCloud, base: DiskSent, tmp_path: Path
) -> None:
    """The probes fit by chance, and all other blocks do not."""
    other = vm_of_the_base(aws, tmp_path, "db", *FILLED)
    probes = json.loads(head_of(aws))["probes"]
    for index, _ in probes:
        with RawFile(tmp_path / "web-1" / "web-1.raw") as image, RawFile(other.source.domain.image, True) as raw:
            raw.write(index * BLOCK, image.read(index * BLOCK, BLOCK))
    for index in range(20, BLOCKS):
        other.source.write(index, what=f"db {index}".encode())
    before = aws.sent()
    sent = other.send()
    differing = len(other.source.content())
    assert sent.origin == "" or sent.bytes < 0.9 * differing * BLOCK
    assert aws.sent() - before == sent.bytes
    assert aws.content(sent.disk) == other.source.content()


def test_an_answer_that_was_lost_is_given_again_with_what_was_saved(aws: AwsCloud, base: DiskSent, second: Vm) -> None:
    sent = second.send()
    before = aws.sent()
    second.source.restart()
    again = second.send()
    assert (again.disk, again.origin, again.saved) == (sent.disk, sent.origin, sent.saved)
    assert aws.sent() == before


@pytest.mark.parametrize("heartbeat_arrived", [True, False])
def test_a_worker_that_dies_in_the_middle_goes_on_from_the_same_base(
    aws: AwsCloud, base: DiskSent, second: Vm, tmp_path: Path, heartbeat_arrived: bool
) -> None:
    before = aws.sent()
    aws.faults.on("PutSnapshotBlock", "unavailable", times=1000, after=1)
    with pytest.raises(ApplicationError):
        second.send()
    aws.faults.clear()
    beats = second.beats[-1:] if heartbeat_arrived else []
    newer = vm_of_the_base(aws, tmp_path, "web-3", 7, 25)  # nearer, and kept meanwhile
    newer.keep(newer.send(newer.order(cached=False)))
    made = {*aws.things()}
    before += len(newer.source.content()) * BLOCK
    second.source.restart()
    sent = second.send(None, *beats)
    assert sent.origin == base.disk
    assert aws.content(sent.disk) == second.source.content()
    assert {*aws.things()} <= made, "one disk was begun, and that one was finished"
    assert aws.sent() - before <= (DIFFERENT + aws.settings.calls.parallel) * BLOCK


def head_of(aws: AwsCloud) -> bytes:
    (name,) = [name for name in aws.server.objects.objects if name.endswith(".json")]
    return aws.server.objects.objects[name]


def test_a_base_that_was_deleted_by_hand_is_a_whole_send(aws: AwsCloud, base: DiskSent, second: Vm) -> None:
    assert aws.adapter.image_import is not None
    aws.adapter.image_import.delete_disk(base.disk)
    sent = second.send()
    assert (sent.origin, sent.saved) == ("", 0)
    assert sent.cache.startswith("miss")
    assert aws.content(sent.disk) == second.source.content()
    assert aws.things() == [sent.disk]


def test_a_base_that_goes_while_a_disk_is_made_from_it_is_a_whole_send_and_leaves_nothing(
    aws: AwsCloud, base: DiskSent, second: Vm
) -> None:
    assert aws.adapter.image_import is not None
    aws.faults.on("PutSnapshotBlock", "unavailable", times=1000, after=1)
    with pytest.raises(ApplicationError):
        second.send()
    aws.faults.clear()
    aws.adapter.image_import.delete_disk(base.disk)
    second.source.restart()
    sent = second.send(None, *second.beats[-1:])
    assert (sent.origin, sent.saved) == ("", 0)
    assert sent.cache == f"miss: {base.disk} is gone, or is no base any more"
    assert aws.content(sent.disk) == second.source.content()
    assert aws.things() == [sent.disk]


@pytest.mark.parametrize(
    ("part", "harm"),
    [(".json", b""), (".json", b'{"format": 1, "disk": 5}'), (".json", b'{"format": 2}'), (".blocks", b"x")],
)
def test_an_index_that_is_damaged_is_a_whole_send(
    aws: AwsCloud, base: DiskSent, second: Vm, part: str, harm: bytes
) -> None:
    (name,) = [name for name in aws.server.objects.objects if name.endswith(part)]
    aws.server.objects.objects[name] = harm
    sent = second.send()
    assert (sent.origin, sent.saved) == ("", 0)
    assert aws.content(sent.disk) == second.source.content()


def test_a_list_of_blocks_that_is_not_the_one_that_its_disk_is_tagged_with_is_not_believed(
    aws: AwsCloud, base: DiskSent, second: Vm, tmp_path: Path
) -> None:
    """Whoever writes to the bucket cannot make a disk out of another one's blocks."""
    assert aws.adapter.cache is not None
    aws.adapter.cache.keep_disk(base.disk, "0" * 64)
    sent = second.send()
    assert sent.origin == ""
    assert aws.content(sent.disk) == second.source.content()


@pytest.mark.parametrize(
    ("call", "kind"), [("ListObjectsV2", "permission"), ("ListObjectsV2", "unavailable"), ("PutObject", "permission")]
)
def test_a_bucket_that_does_not_answer_is_a_whole_send_with_the_reason(
    aws: AwsCloud, base: DiskSent, second: Vm, call: str, kind: Any
) -> None:
    aws.faults.on(call, kind, times=1000)
    sent = second.send()
    assert sent.origin == ""
    assert sent.cache.startswith("miss")
    assert aws.content(sent.disk) == second.source.content()
    assert kind != "permission" or "Access Denied" in sent.cache


def test_without_leave_nothing_is_looked_for(aws: AwsCloud, base: DiskSent, second: Vm) -> None:
    looked = aws.faults.count("ListObjectsV2")
    sent = second.send(second.order(cached=False))
    assert (sent.origin, sent.cache) == ("", "")
    assert aws.faults.count("ListObjectsV2") == looked


def test_another_scope_does_not_see_the_base(aws: AwsCloud, base: DiskSent, second: Vm) -> None:
    assert aws.settings.cache is not None
    other = aws.settings.cache.model_copy(update={"scope": "tenant-b"})
    second.source.cloud = aws.settings.model_copy(update={"cache": other})
    second.source.restart()
    sent = second.send()
    assert sent.cache == "miss: no base of this size is kept"


def test_what_is_kept_is_tagged_and_kept_once(aws: AwsCloud, first: Vm) -> None:
    sent = first.send()
    assert [first.keep(sent).disks for _ in range(2)] == [(sent.disk,)] * 2
    assert {"Key": TAG, "Value": sent.content} in aws.server.strict.snapshots[sent.disk].tags
    assert sorted(name.rpartition(".")[2] for name in aws.server.objects.objects) == ["blocks", "json"]
    assert all(name.startswith(f"{ROOT}/shared/bases/") for name in aws.server.objects.objects)


def test_a_disk_that_was_made_from_a_base_is_no_new_one(aws: AwsCloud, base: DiskSent, second: Vm) -> None:
    kept = second.keep(second.send())
    assert kept.disks == ()
    assert "a base that is kept already has 86% of it" in kept.reasons[0]


def test_only_what_was_proved_equal_is_kept(aws: AwsCloud, first: Vm) -> None:
    sent = first.send()
    kept = first.keep(sent.model_copy(update={"source": ""}))
    assert kept.disks == ()
    assert "not compared with its image" in kept.reasons[0]
    changed = first.keep(sent.model_copy(update={"disk": "snap-0"}))
    assert "not what was sent last" in changed.reasons[0]
    assert aws.server.objects.objects == {}


async def test_uses_and_savings_are_listed(aws: AwsCloud, base: DiskSent, second: Vm) -> None:
    sent = second.send()
    (listed,) = (await cache(aws)).bases
    assert (listed.disk, listed.name, listed.uses, listed.saved) == (base.disk, "web-1-vda", 1, sent.saved)
    assert listed.in_use == 0
    assert listed.held == base.bytes


async def test_what_a_move_makes_a_disk_from_stays_whatever_the_bounds_say(
    aws: AwsCloud, base: DiskSent, second: Vm
) -> None:
    aws.faults.on("PutSnapshotBlock", "unavailable", times=1000, after=1)
    with pytest.raises(ApplicationError):
        second.send()
    aws.faults.clear()
    report = await cache(aws, action="prune", everything=True)
    assert report.removed == ()
    assert [(each.disk, each.in_use) for each in report.bases] == [(base.disk, 1)]
    second.settle()  # the move is given up
    report = await cache(aws, action="prune", everything=True)
    assert [each.disk for each in report.removed] == [base.disk]
    assert base.disk not in aws.things()
    assert aws.server.objects.objects == {}


async def test_what_an_image_is_made_of_yet_stays_until_the_next_time(aws: AwsCloud, base: DiskSent) -> None:
    """As between a cut-over and the clean-up behind it."""
    images = aws.adapter.image_import
    assert images is not None
    image = images.create_image(ImageOrder(name="web-1", token=token("w", "image"), disks=(base.disk,)))
    report = await cache(aws, action="prune", everything=True)
    assert ([each.disk for each in report.bases], report.removed) == ([base.disk], ())
    images.delete_image(image.id)
    report = await cache(aws, action="prune", everything=True)
    assert [each.disk for each in report.removed] == [base.disk]
    assert aws.things() == []


def test_a_send_that_is_cancelled_lets_its_base_go(aws: AwsCloud, base: DiskSent, second: Vm) -> None:
    env = ActivityEnvironment()

    def cancel(*details: Any) -> None:
        if details[0]:
            env.cancel()

    env.on_heartbeat = cancel
    with pytest.raises(CancelledError):
        env.run(second.source.activities.send_disk, second.order())
    assert not [name for name in aws.server.objects.objects if name.endswith(".open")]
    assert aws.things() == [base.disk]


async def test_what_was_of_no_use_for_long_goes_and_what_is_gone_is_forgotten(
    aws: AwsCloud, first: Vm, second: Vm, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert aws.adapter.image_import is not None
    sent = first.send()
    monkeypatch.setattr("activities.cloud_bases.time.time", lambda: 1.0)
    first.keep(sent.model_copy())
    monkeypatch.undo()
    report = await cache(aws, action="prune")
    assert "of no use for" in report.removed[0].gone
    assert aws.things() == []
    other = second.send()
    second.keep(other)
    aws.adapter.image_import.delete_disk(other.disk)
    report = await cache(aws, action="prune")
    assert "its disk is gone" in report.removed[0].gone
    assert aws.server.objects.objects == {}


async def test_old_uses_do_not_count_and_are_swept(aws: AwsCloud, base: DiskSent, second: Vm) -> None:
    second.send()
    (use,) = [name for name in aws.server.objects.objects if name.endswith(".done")]
    aws.server.objects.aged[use] = timedelta(days=40)
    (listed,) = (await cache(aws)).bases
    assert listed.uses == 0
    await cache(aws, action="prune")
    assert use not in aws.server.objects.objects


def test_an_estimate_compares_a_few_blocks_of_a_running_vm(aws: AwsCloud, base: DiskSent, second: Vm) -> None:
    image = second.source.image.model_copy(update={"allocated": 10 << 20})
    told = ActivityEnvironment().run(
        second.bases.weigh_bases, WeighBases(place=PLACE, vm=second.source.ref, disks=(image,))
    )
    assert told.saved is not None
    assert 0.8 * image.allocated < told.saved <= image.allocated
    qcow2 = image.model_copy(update={"format": "qcow2"})
    told = ActivityEnvironment().run(
        second.bases.weigh_bases, WeighBases(place=PLACE, vm=second.source.ref, disks=(qcow2,))
    )
    assert told.saved is None


def test_settings_without_a_cache_keep_nothing(aws: AwsCloud, first: Vm) -> None:
    first.source.cloud = aws.settings.model_copy(update={"cache": None})
    first.source.restart()
    sent = first.send()
    assert (sent.origin, sent.cache) == ("", "")
    assert first.keep(sent).disks == ()
    assert not Path(f"{first.source.domain.image}{SUFFIX}.new").exists()
    assert aws.server.objects.objects == {}


def test_on_azure_the_second_vm_sends_its_difference_and_the_rest_is_copied_there(
    azure: AzureCloud, tmp_path: Path
) -> None:
    elder, second = (
        vm_of_the_base(azure, tmp_path, name, *own) for name, own in (("web-1", (25,)), ("web-2", (7, 22)))
    )
    base = elder.send()
    assert elder.keep(base).disks == (base.disk,)
    elder.settle()
    whole, before = len(second.source.content()) * BLOCK, azure.sent()
    sent = second.send()
    assert azure.sent() - before == sent.bytes == DIFFERENT * BLOCK < 0.15 * whole
    assert (sent.origin, sent.saved) == (base.disk, whole - sent.bytes)
    assert azure.content(sent.disk) == second.source.content()
    assert sent.content == sent.source == second.hash
    second.source.write(12, what=b"since then")
    again = second.send(second.order("2", sent.disk))
    assert again.bytes == BLOCK
    assert azure.content(again.disk) == second.source.content()
    assert sorted(azure.things()) == sorted([base.disk, sent.disk, again.disk])


def test_on_azure_a_base_that_goes_half_way_is_a_whole_send_and_leaves_nothing(
    azure: AzureCloud, tmp_path: Path
) -> None:
    elder, second = (
        vm_of_the_base(azure, tmp_path, name, *own) for name, own in (("web-1", (25,)), ("web-2", (7, 22)))
    )
    base = elder.send()
    elder.keep(base)
    azure.faults.on("PUT page", "unavailable", times=1000, after=1)
    with pytest.raises(ApplicationError):
        second.send()
    azure.faults.clear()
    assert azure.adapter.image_import is not None
    azure.adapter.image_import.delete_disk(base.disk)
    sent = second.send(None, *second.beats[-1:])
    assert (sent.origin, sent.saved) == ("", 0)
    assert azure.content(sent.disk) == second.source.content()
    assert azure.things() == [sent.disk]
