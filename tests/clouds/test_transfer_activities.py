"""A disk from one cloud to another, with the real SDKs of both over HTTP: the two hold the same bytes, killed steps go
on, and what is left is one disk."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError, CancelledError
from temporalio.testing import ActivityEnvironment

from activities.cloud_transfers import CloudTransferActivities
from clouds import relay
from clouds.ahead import Ahead
from clouds.disks.content import BLOCK, content_hash
from clouds.disks.ledger import Ledger
from models.cloud_move import DiskSent
from models.cloud_transfer import ForgetTransfer, TransferDisk
from models.clouds import Snapshot, place_of
from models.host import SiteSettings
from tests.clouds.scene import Cloud, Killed, MemoryDisk, boot_image, instance_order, looks, token

PAIRS = [("aws", "azure"), ("azure", "aws")]


class Pair:
    """An instance of one cloud that has data in eleven blocks, and a control worker with accounts for both."""

    def __init__(self, source: Cloud, target: Cloud, folder: Path) -> None:
        self.source, self.target, self.folder = source, target, folder
        self.restart()
        instances = source.adapter.instances
        assert instances is not None
        made = instances.create_instance(instance_order(source, boot_image(source)), token("pair", "run"))
        self.volume = instances.get_instance(made.id).disks[0].disk
        for index in range(2, 11):
            self.write(index, b"data")
        self.before = set(target.things())

    def restart(self) -> None:
        """Another process."""
        settings = SiteSettings(
            site="lab", hosts=("host-a",), clouds=(self.source.settings, self.target.settings),
            transfers=str(self.folder),
        )  # fmt: skip
        self.work = CloudTransferActivities(settings)

    def write(self, index: int, what: bytes) -> None:
        self.source.guest_writes(self.volume, index, what + bytes([index]))

    def snapshot(self, number: int) -> Snapshot:
        exports, images = self.source.adapter.image_export, self.source.adapter.image_import
        assert exports is not None
        assert images is not None
        made = exports.create_snapshot(self.volume, token("pair", f"snapshot/{number}"))
        for _ in looks():
            if (made := images.get_snapshot(made.id)).state == "ready":
                break
        return made

    def order(self, number: int, snapshot: str, base: tuple[str, str] = ("", "")) -> TransferDisk:
        """`base`: snapshot, and the target's disk that holds it."""
        return TransferDisk(
            move="m1", source=place_of(self.source.settings), place=place_of(self.target.settings), vm="counter",
            target="vda", snapshot=snapshot, base_snapshot=base[0], base=base[1],
            token=token("pair", f"disk/{number}"), read_back=self.target.adapter.image_export is not None,
        )  # fmt: skip

    def run(self, order: TransferDisk, *heartbeat: Any, dies_at: int = 10**9) -> tuple[DiskSent, list[Any]]:
        """(the answer, the heartbeats). Raises Killed in the heartbeat of that number with a cursor."""
        env, beats = ActivityEnvironment(), list[Any]()
        env.info = dataclasses.replace(env.info, heartbeat_details=list(heartbeat))

        def beat(*details: Any) -> None:
            if len(beats) >= dies_at:
                raise Killed(beats)
            if details[0]:
                beats.append(details[0])

        env.on_heartbeat = beat
        return env.run(self.work.transfer_disk, order), beats

    def made(self) -> list[str]:
        return [each for each in self.target.things() if each not in self.before]


def whole_hash(blocks: dict[int, bytes]) -> str:
    disk = MemoryDisk((max(blocks) + 1) * BLOCK)
    for index, data in blocks.items():
        disk.write(index * BLOCK, data)
    return content_hash(disk)


@pytest.fixture(params=PAIRS, ids="-to-".join)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Pair:
    source, target = (request.getfixturevalue(name) for name in request.param)
    return Pair(source, target, tmp_path / "transfers")


@pytest.fixture
def homeward(aws: Cloud, azure: Cloud, tmp_path: Path) -> Pair:
    """The quicker way: the other fake holds a disk of a GiB."""
    return Pair(azure, aws, tmp_path / "transfers")


def test_a_disk_goes_whole_once_and_then_what_changed_and_both_clouds_hold_the_same(pair: Pair) -> None:
    first = pair.snapshot(1)
    done, _ = pair.run(pair.order(1, first.id))
    assert pair.target.content(done.disk) == pair.source.content(first.id)
    assert done.content == done.source == whole_hash(pair.source.content(first.id))
    pair.write(3, b"new")
    pair.write(12, b"more")
    second, sent = pair.snapshot(2), pair.target.sent()
    reads = pair.source.faults.count(pair.source.calls.read)
    after, _ = pair.run(pair.order(2, second.id, (first.id, done.disk)))
    assert (after.bytes, pair.target.sent() - sent) == (2 * BLOCK, 2 * BLOCK)
    assert pair.source.faults.count(pair.source.calls.read) - reads == 2
    assert pair.target.content(after.disk) == pair.source.content(second.id)
    assert after.content == whole_hash(pair.source.content(second.id))
    third = pair.snapshot(3)
    same, _ = pair.run(pair.order(3, third.id, (second.id, after.disk)))
    assert (same.disk, same.bytes, same.content) == (after.disk, 0, after.content)


@pytest.mark.parametrize("dies_at", [1, 5, 9])
def test_a_worker_that_dies_is_followed_by_one_that_sends_little_again(homeward: Pair, dies_at: int) -> None:
    pair = homeward
    snapshot, before = pair.snapshot(1), pair.target.sent()
    with pytest.raises(Killed) as killed:
        pair.run(pair.order(1, snapshot.id), dies_at=dies_at)
    pair.restart()
    (beats,) = killed.value.args
    done, _ = pair.run(pair.order(1, snapshot.id), beats[-1])
    assert pair.target.content(done.disk) == pair.source.content(snapshot.id)
    assert pair.made() == [done.disk]
    blocks = len(pair.source.content(snapshot.id))
    assert pair.target.sent() - before <= (blocks + pair.target.settings.calls.parallel) * BLOCK + 4096


def test_an_answer_that_was_lost_is_given_again(homeward: Pair) -> None:
    order = homeward.order(1, homeward.snapshot(1).id)
    first, _ = homeward.run(order)
    sent, reads = homeward.target.sent(), homeward.source.faults.count(homeward.source.calls.read)
    homeward.restart()
    again, _ = homeward.run(order)
    assert (again.disk, again.content, again.bytes) == (first.disk, first.content, first.bytes)
    assert (homeward.target.sent(), homeward.source.faults.count(homeward.source.calls.read)) == (sent, reads)


def test_another_worker_goes_on_without_the_first_ones_ledger(homeward: Pair) -> None:
    first = homeward.snapshot(1)
    done, _ = homeward.run(homeward.order(1, first.id))
    (homeward.folder / "m1-vda").unlink()
    homeward.write(4, b"new")
    second, sent = homeward.snapshot(2), homeward.target.sent()
    after, _ = homeward.run(homeward.order(2, second.id, (first.id, done.disk)))
    assert homeward.target.sent() - sent == BLOCK
    assert after.content == whole_hash(homeward.source.content(second.id))
    assert homeward.target.content(after.disk) == homeward.source.content(second.id)


def test_a_target_that_holds_something_else_is_seen_and_its_disk_removed(
    homeward: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    true_whole = relay.Leg.whole

    def another(leg: relay.Leg, *args: Any) -> Ledger:
        ledger = true_whole(leg, *args)
        ledger.take(5, b"the source gave this")
        return ledger

    monkeypatch.setattr(relay.Leg, "whole", another)
    with pytest.raises(ApplicationError, match="1 blocks differ") as caught:
        homeward.run(homeward.order(1, homeward.snapshot(1).id))
    assert (caught.value.type, caught.value.non_retryable) == ("SourceChanged", True)
    assert homeward.made() == []


@pytest.mark.parametrize("gone", ["snapshot", "disk"])
def test_a_base_that_is_gone_asks_for_the_whole_disk(homeward: Pair, gone: str) -> None:
    first = homeward.snapshot(1)
    done, _ = homeward.run(homeward.order(1, first.id))
    homeward.write(4, b"new")
    second = homeward.snapshot(2)
    images = homeward.source.adapter.image_import if gone == "snapshot" else homeward.target.adapter.image_import
    assert images is not None
    images.delete_disk(first.id if gone == "snapshot" else done.disk)
    with pytest.raises(ApplicationError) as caught:
        homeward.run(homeward.order(2, second.id, (first.id, done.disk)))
    assert caught.value.type == "SourceChanged"


def test_a_cancel_leaves_nothing_at_the_target(homeward: Pair) -> None:
    env, beats = ActivityEnvironment(), list[Any]()

    def cancel(*details: Any) -> None:
        beats.extend(details)
        if len(beats) == 5:
            env.cancel()

    env.on_heartbeat = cancel
    with pytest.raises(CancelledError):
        env.run(homeward.work.transfer_disk, homeward.order(1, homeward.snapshot(1).id))
    assert homeward.made() == []


def test_a_cloud_that_takes_archives_gets_the_same_bytes(azure: Cloud, gcp: Cloud, tmp_path: Path) -> None:
    pair = Pair(azure, gcp, tmp_path / "transfers")
    snapshot = pair.snapshot(1)
    done, _ = pair.run(pair.order(1, snapshot.id))
    assert pair.target.content(done.disk) == pair.source.content(snapshot.id)
    assert (done.content, done.source) == (whole_hash(pair.source.content(snapshot.id)), "")
    assert pair.made() == [done.disk]


def test_what_a_cloud_does_not_offer_is_refused_with_the_reason(gcp: Cloud, aws: Cloud, tmp_path: Path) -> None:
    pair = Pair.__new__(Pair)
    pair.source, pair.target, pair.folder = gcp, aws, tmp_path / "transfers"
    pair.restart()
    with pytest.raises(ApplicationError, match="gcp has no ImageExport") as caught:
        pair.run(pair.order(1, "snapshot-1"))
    assert caught.value.type == "Refused"


def test_forgetting_leaves_other_moves_alone(homeward: Pair) -> None:
    homeward.run(homeward.order(1, homeward.snapshot(1).id))
    (homeward.folder / "m2-vda").write_text("another move's")
    for _ in range(2):
        ActivityEnvironment().run(homeward.work.forget_transfer, ForgetTransfer(move="m1"))
    assert [path.name for path in homeward.folder.iterdir()] == ["m2-vda"]


def test_a_folder_that_cannot_be_made_is_named(homeward: Pair) -> None:
    homeward.folder.write_text("a file")
    with pytest.raises(ApplicationError, match="Name another \\(transfers\\)"):
        homeward.run(homeward.order(1, "snap-1"))


def test_reading_ahead_is_bounded_and_gives_what_is_there_in_any_order() -> None:
    disk = MemoryDisk(20 * BLOCK + 7)
    for index in range(21):
        disk.write(index * BLOCK, bytes([index]) * 7)
    with Ahead(disk, 4, [(0, 3 * BLOCK), (8 * BLOCK, 12 * BLOCK + 7)]) as ahead:
        for index in (0, 1, 2, 8, 9, 19, 20, 5, 1, 2):
            data = ahead.read(index * BLOCK, min(BLOCK, disk.size - index * BLOCK))
            assert data[:7] == bytes([index]) * 7
            assert len(ahead._asked) <= 4
        assert ahead.read(BLOCK - 3, 6) == disk.read(BLOCK - 3, 6)
