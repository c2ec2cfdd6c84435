"""Contract of ImageExport: what comes back is what was there, every block of it verified."""

from __future__ import annotations

from pathlib import Path

import pytest

from clouds.ahead import Ahead
from clouds.capabilities import ImageExport, ImageImport
from clouds.disks.content import BLOCK, content_hash, touched
from clouds.disks.images import convert, hash_image, make_empty, open_image
from clouds.errors import BadDisk, Damaged, NotFound, SourceChanged
from tests.clouds.scene import (
    Cloud,
    Journal,
    Killed,
    MemoryDisk,
    boot_image,
    ignore,
    instance_order,
    looks,
    order,
    small_disk,
    stop,
    token,
)

pytestmark = pytest.mark.capability("ImageExport")


@pytest.fixture
def images(cloud: Cloud) -> ImageImport:
    assert cloud.adapter.image_import is not None
    return cloud.adapter.image_import


@pytest.fixture
def export(cloud: Cloud) -> ImageExport:
    assert cloud.adapter.image_export is not None
    return cloud.adapter.image_export


def test_qcow2_in_is_qcow2_out(cloud: Cloud, images: ImageImport, export: ImageExport, tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(small_disk().held)
    info = convert(tmp_path / "raw", "raw", tmp_path / "in.qcow2", "qcow2")
    with open_image(tmp_path / "in.qcow2", "qcow2") as source:
        sent = images.import_disk(order(), source, ignore)
    make_empty(tmp_path / "out.qcow2", "qcow2", info.size)
    with open_image(tmp_path / "out.qcow2", "qcow2", writable=True) as target:
        back = export.export_disk(sent.disk, target, ignore)
    assert back.content == sent.content
    assert hash_image(tmp_path / "in.qcow2", "qcow2") == hash_image(tmp_path / "out.qcow2", "qcow2") == sent.content


def test_an_instances_disk_comes_home_with_what_its_guest_wrote(
    cloud: Cloud, images: ImageImport, export: ImageExport
) -> None:
    assert cloud.adapter.instances is not None
    order_ = instance_order(cloud, boot_image(cloud))
    instance = cloud.adapter.instances.create_instance(order_, token("move/lab", "run"))
    volume = cloud.adapter.instances.get_instance(instance.id).disks[0].disk
    cloud.guest_writes(volume, 3, b"written in the cloud")
    if cloud.calls.snapshots_of_stopped:
        stop(cloud, instance.id)
    snapshot = export.create_snapshot(volume, token("move/lab", "snapshot"))
    assert export.create_snapshot(volume, token("move/lab", "snapshot")).id == snapshot.id
    for _ in looks():
        if images.get_snapshot(snapshot.id).state == "ready":
            break
    else:
        raise AssertionError(f"{snapshot.id} is not ready")
    expected = small_disk(0, 1)
    expected.write(3 * BLOCK, b"written in the cloud")
    target = MemoryDisk(expected.size)
    assert export.export_disk(snapshot.id, target, ignore).content == content_hash(expected)
    assert target.held == expected.held


def test_a_disk_is_read_as_one_likes_each_block_verified(
    cloud: Cloud, images: ImageImport, export: ImageExport
) -> None:
    source = small_disk()
    disk = images.import_disk(order(), source, ignore).disk
    with export.open_disk(disk) as shown:
        assert shown.size >= source.size
        told = sorted(touched(shown.size, shown.data()))
        assert set(source.blocks()) <= set(told)
        for index in (7, 2, 12, 1, 7):
            data = shown.read(index * BLOCK, min(BLOCK, shown.size - index * BLOCK))
            assert data.ljust(BLOCK, b"\0") == source.blocks().get(index, bytes(BLOCK))
        assert shown.read(3 * BLOCK - 5, 10) == source.read(3 * BLOCK - 5, 10)
        with Ahead(shown, 4) as ahead:
            assert {index: data for index, data in ahead.blocks() if data.strip(b"\0")} == source.blocks()


def test_how_large_a_volume_is_is_known_before_any_snapshot_of_it(cloud: Cloud, export: ImageExport) -> None:
    instances = cloud.adapter.instances
    assert instances is not None
    instance = instances.create_instance(instance_order(cloud, boot_image(cloud)), token("move/lab", "run"))
    assert export.volume_size(instances.get_instance(instance.id).disks[0].disk) >= small_disk(0, 1).size
    with pytest.raises(NotFound):
        export.volume_size("vol-0123456789abcdef0")


def test_an_export_that_dies_goes_on_and_sees_a_target_that_changed(
    cloud: Cloud, images: ImageImport, export: ImageExport
) -> None:
    source = small_disk(*range(130), size=130 * BLOCK)
    disk = images.import_disk(order(), source, ignore).disk
    target, journal = MemoryDisk(source.size), Journal(deadly=1, moved_only=True)
    with pytest.raises(Killed):
        export.export_disk(disk, target, journal)
    before = cloud.faults.count(cloud.calls.read)
    spoiled = target.copy()
    spoiled.write(0, b"somebody else")
    with pytest.raises(SourceChanged, match="fresh target"):
        export.export_disk(disk, spoiled, ignore, journal.kept[-1])
    mended = export.export_disk(disk, target, ignore, journal.kept[-1])
    assert target.held == source.held
    assert mended.content == content_hash(source)
    assert cloud.faults.count(cloud.calls.read) - before < 130


def test_bytes_that_do_not_fit_their_checksum_are_not_written(
    cloud: Cloud, images: ImageImport, export: ImageExport
) -> None:
    disk = images.import_disk(order(), small_disk(0), ignore).disk
    cloud.faults.on(cloud.calls.read, "damage")
    target = MemoryDisk(BLOCK)
    with pytest.raises(Damaged, match="read again"):
        export.export_disk(disk, target, ignore)
    assert target.blocks() == {}


def test_bytes_that_do_not_fit_their_checksum_are_not_read(
    cloud: Cloud, images: ImageImport, export: ImageExport
) -> None:
    disk = images.import_disk(order(), small_disk(0), ignore).disk
    cloud.faults.on(cloud.calls.read, "damage")  # some clouds are read when a disk is opened, others block by block
    with pytest.raises(Damaged, match="read again"), export.open_disk(disk) as shown:
        shown.read(0, BLOCK)


@pytest.mark.parametrize("kind", ["throttle", "drop", "unavailable", "lose"])
def test_a_passing_fault_is_not_seen(cloud: Cloud, images: ImageImport, export: ImageExport, kind: str) -> None:
    source = small_disk()
    disk = images.import_disk(order(), source, ignore).disk
    cloud.faults.on(cloud.calls.read, kind)  # type: ignore[arg-type]
    target = MemoryDisk(source.size)
    export.export_disk(disk, target, ignore)
    assert target.held == source.held


def test_a_target_that_is_too_small_is_refused(cloud: Cloud, images: ImageImport, export: ImageExport) -> None:
    disk = images.import_disk(order(), small_disk(), ignore).disk
    with pytest.raises(BadDisk, match="as large as the snapshot"):
        export.export_disk(disk, MemoryDisk(5 * BLOCK), ignore)


def test_what_is_not_there_is_not_found(cloud: Cloud, export: ImageExport) -> None:
    with pytest.raises(NotFound):
        export.export_disk("snap-0123456789abcdef0", MemoryDisk(BLOCK), ignore)
    with pytest.raises(NotFound), export.open_disk("snap-0123456789abcdef0"):
        pass
    with pytest.raises(NotFound):
        export.create_snapshot("vol-0123456789abcdef0", token("move/lab", "snapshot"))
