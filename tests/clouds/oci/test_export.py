"""The way out of Oracle Cloud: an image of a stopped instance, its export, and the file that it comes through."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from clouds import errors
from clouds.disks.content import BLOCK, content_hash
from clouds.oci.exports import OciExport
from clouds.oci.fetched import FORGOTTEN
from models.clouds import Cursor
from tests.clouds.oci.scene import OciCloud
from tests.clouds.oci.server import RANGE
from tests.clouds.scene import Killed, MemoryDisk, boot_image, ignore, instance_order, order, small_disk, stop, token

EXPECTED = small_disk(0, 1)


@pytest.fixture
def export(oci: OciCloud) -> Iterator[OciExport]:
    part = oci.adapter.image_export
    assert isinstance(part, OciExport)
    yield part
    for left in spool(oci).glob("*"):
        left.unlink()


def spool(oci: OciCloud) -> Path:
    return Path(oci.settings.spool)


@pytest.fixture
def instance(oci: OciCloud) -> str:
    assert oci.adapter.instances is not None
    return oci.adapter.instances.create_instance(instance_order(oci, boot_image(oci)), token("move/lab", "run")).id


@pytest.fixture
def snapshot(oci: OciCloud, export: OciExport, instance: str) -> str:
    stop(oci, instance)
    return export.create_snapshot(f"{instance}.boot", token("move/lab", "snapshot")).id


def test_an_instance_that_runs_is_not_stopped_for_a_snapshot(oci: OciCloud, export: OciExport, instance: str) -> None:
    with pytest.raises(errors.Conflict, match="Stop it first"):
        export.create_snapshot(f"{instance}.boot", token("move/lab", "snapshot"))
    assert len(oci.server.cloud.images) == 1, "the one that it was made of"


def test_a_worker_that_dies_while_oracle_exports_begins_no_second_export(
    oci: OciCloud, export: OciExport, snapshot: str
) -> None:
    def dies(cursor: Cursor) -> None:
        if oci.faults.count("GetWorkRequest"):
            raise Killed

    target = MemoryDisk(EXPECTED.size)
    oci.server.cloud.slow = 4
    oci.faults.on("ExportImage", "lose")
    with pytest.raises(Killed):
        export.export_disk(snapshot, target, dies)
    assert export.export_disk(snapshot, target, ignore).content == content_hash(EXPECTED)
    assert len(oci.server.cloud.requests) == 1
    assert list(spool(oci).iterdir()) == []


def test_an_export_that_oracle_gives_up_says_why_and_can_be_repeated(
    oci: OciCloud, export: OciExport, snapshot: str
) -> None:
    oci.faults.on("ExportImage", "fail")
    target = MemoryDisk(EXPECTED.size)
    with pytest.raises(errors.OperationFailed, match="InvalidBucket: The bucket may not be written to"):
        export.export_disk(snapshot, target, ignore)
    assert export.export_disk(snapshot, target, ignore).content == content_hash(EXPECTED)


def test_a_snapshot_goes_with_what_was_exported_of_it(oci: OciCloud, export: OciExport, snapshot: str) -> None:
    images = oci.adapter.image_import
    assert images is not None
    before = oci.things()
    export.export_disk(snapshot, MemoryDisk(EXPECTED.size), ignore)
    assert len(oci.things()) == len(before) + 1
    for _ in range(2):
        images.delete_disk(snapshot)
    assert sorted(oci.things()) == sorted(set(before) - {snapshot})
    with pytest.raises(errors.NotFound):
        images.get_snapshot(snapshot)


def test_a_bit_that_flips_in_an_exported_image_is_seen_by_its_md5(
    oci: OciCloud, export: OciExport, snapshot: str
) -> None:
    oci.faults.on(RANGE, "damage")
    target = MemoryDisk(EXPECTED.size)
    with pytest.raises(errors.Damaged, match="MD5"):
        export.export_disk(snapshot, target, ignore)
    assert target.blocks() == {}
    assert list(spool(oci).iterdir()) == [], "the next attempt fetches it anew"


def test_a_file_of_another_process_is_waited_for_and_a_forgotten_one_removed(oci: OciCloud, export: OciExport) -> None:
    images = oci.adapter.image_import
    assert images is not None
    disk = images.import_disk(order(), small_disk(), ignore).disk
    oci.faults.on(RANGE, "unavailable", times=1000, after=1)
    with pytest.raises(errors.Unavailable):
        export.export_disk(disk, MemoryDisk(small_disk().size), ignore)
    oci.faults.clear()
    (left,) = spool(oci).iterdir()
    assert left.stat().st_size == BLOCK, "what came is not fetched again"
    with left.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(errors.Busy, match="another process"):
            export.export_disk(disk, MemoryDisk(small_disk().size), ignore)
    forgotten = spool(oci) / "novacron-gone.qcow2"
    forgotten.write_bytes(b"x")
    os.utime(forgotten, (forgotten.stat().st_mtime - 2 * FORGOTTEN,) * 2)
    export.export_disk(disk, MemoryDisk(small_disk().size), ignore)
    assert list(spool(oci).iterdir()) == []
