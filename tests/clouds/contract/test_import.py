"""Contract of ImageImport: what arrives is what was sent, once, whatever breaks on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from clouds.capabilities import ImageImport
from clouds.disks.content import BLOCK, content_hash
from clouds.errors import Conflict, Final, NotFound, OperationFailed, QuotaExceeded, SourceChanged
from models.clouds import Cursor, ImageOrder
from tests.clouds.faults import Kind
from tests.clouds.scene import Cloud, Journal, Killed, MemoryDisk, ignore, looks, order, small_disk, tags, token

pytestmark = pytest.mark.capability("ImageImport")
WHOLE = 6
"""Blocks of small_disk() that are not zero."""


@pytest.fixture
def images(cloud: Cloud) -> ImageImport:
    assert cloud.adapter.image_import is not None
    return cloud.adapter.image_import


def image_order(*disks: str, step: str = "image", name: str = "vm-1-image") -> ImageOrder:
    return ImageOrder(name=name, token=token("move/lab/vm-1", step), disks=disks, firmware="uefi", tags=tags())


def test_a_disk_arrives_as_it_is_and_zeros_are_not_sent(cloud: Cloud, images: ImageImport) -> None:
    source = small_disk()
    arrived = images.import_disk(order(), source, ignore)
    assert cloud.content(arrived.disk) == source.blocks()
    assert (arrived.content, arrived.blocks) == (content_hash(source), WHOLE)
    assert WHOLE * BLOCK <= cloud.sent() < (WHOLE + 1) * BLOCK
    found = images.get_snapshot(arrived.disk)
    assert (found.state, found.size >= source.size) == ("ready", True)
    assert found.tags["novacron-token"] == order().token


def test_an_empty_disk_arrives_too(cloud: Cloud, images: ImageImport) -> None:
    arrived = images.import_disk(order(), MemoryDisk(BLOCK), ignore)
    assert (cloud.content(arrived.disk), arrived.blocks) == ({}, 0)


def test_one_token_makes_one_disk(cloud: Cloud, images: ImageImport) -> None:
    first = images.import_disk(order(), small_disk(), ignore)
    sent = cloud.sent()
    second = images.import_disk(order(), small_disk(), ignore)
    assert first == second
    assert cloud.things() == [first.disk]
    assert cloud.sent() == sent, "nothing is sent to a disk that is complete"


@pytest.mark.parametrize("died_at", [0, 3, None])
def test_a_disk_that_nobody_knows_the_id_of_is_deleted_by_its_token(
    cloud: Cloud, images: ImageImport, died_at: int | None
) -> None:
    """Its worker died: before it said anything, on the way, or with all done."""
    other = images.import_disk(order("other", "vm-1-vdb"), small_disk(0), ignore)
    with suppress(Killed):
        images.import_disk(order(), small_disk(), Journal(died_at) if died_at is not None else ignore)
    for _ in range(2):
        images.delete_disk_of(order().token)
    assert cloud.things() == [other.disk]


@pytest.mark.parametrize("kept", range(WHOLE + 2))
def test_an_upload_that_dies_anywhere_goes_on_where_it_was(cloud: Cloud, images: ImageImport, kept: int) -> None:
    source = small_disk()
    journal = Journal(deadly=kept)
    with pytest.raises(Killed):
        images.import_disk(order(), source, journal)
    arrived = images.import_disk(order(), source, ignore, journal.kept[-1] if journal.kept else None)
    assert cloud.content(arrived.disk) == source.blocks()
    assert (arrived.content, arrived.blocks) == (content_hash(source), WHOLE)
    assert cloud.things() == [arrived.disk]
    assert cloud.sent() <= (WHOLE + cloud.settings.calls.parallel) * BLOCK


def test_a_killed_worker_sends_one_block_twice_at_most(cloud: Cloud, images: ImageImport, tmp_path: Path) -> None:
    """A real process, and SIGKILL; it keeps its cursor in a file and has one block in flight."""
    source = small_disk(*range(40), size=40 * BLOCK)
    (tmp_path / "disk.raw").write_bytes(source.held)
    calls = cloud.settings.calls.model_copy(update={"parallel": 1})
    (tmp_path / "settings.json").write_text(cloud.settings.model_copy(update={"calls": calls}).model_dump_json())
    command = [sys.executable, "-m", "tests.clouds.uploader", str(tmp_path)]
    worker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
    assert worker.stdout is not None
    for _ in range(15):
        assert worker.stdout.readline(), "the worker ended by itself"
    worker.send_signal(signal.SIGKILL)
    worker.communicate()
    resume = Cursor.model_validate_json((tmp_path / "cursor.json").read_text())
    assert 10 < resume.sent < 40
    arrived = images.import_disk(order(), source, ignore, resume)
    assert cloud.content(arrived.disk) == source.blocks()
    assert cloud.things() == [arrived.disk]
    assert cloud.sent() <= 41 * BLOCK


def test_a_source_that_changed_behind_a_crash_is_not_mixed(cloud: Cloud, images: ImageImport) -> None:
    source, journal = small_disk(), Journal(deadly=4)
    with pytest.raises(Killed):
        images.import_disk(order(), source, journal)
    source.write(5, b"changed")
    with pytest.raises(SourceChanged, match="another step's token"):
        images.import_disk(order(), source, ignore, journal.kept[-1])
    assert images.get_snapshot(journal.kept[-1].disk).state == "pending", "it was not completed"


def test_what_a_lost_attempt_sent_of_another_source_is_not_mixed_in(cloud: Cloud, images: ImageImport) -> None:
    """Its cursor is lost; blocks that it sent read as zeros now, and zeros are not sent."""
    source = small_disk()
    with pytest.raises(Killed):
        images.import_disk(order(), source, Journal(deadly=5))
    source.zero(0, BLOCK)
    journal = Journal()
    with pytest.raises(Final):
        images.import_disk(order(), source, journal)
    assert images.get_snapshot(journal.kept[0].disk).state == "pending", "it was not completed"


def test_a_complete_disk_is_not_taken_for_a_source_that_changed(cloud: Cloud, images: ImageImport) -> None:
    """The first attempt's answer was lost, and its cursor too; the VM wrote on."""
    source = small_disk()
    images.import_disk(order(), source, ignore)
    source.write(5, b"changed")
    with pytest.raises(SourceChanged, match="another step's token"):
        images.import_disk(order(), source, ignore)


@pytest.mark.parametrize("kind", ["lose", "drop", "throttle", "unavailable"])
def test_a_passing_fault_in_any_step_is_not_seen(cloud: Cloud, images: ImageImport, kind: Kind) -> None:
    for call in (cloud.calls.start, cloud.calls.write, cloud.calls.finish):
        cloud.faults.on(call, kind)
    source = small_disk()
    arrived = images.import_disk(order(), source, ignore)
    assert cloud.content(arrived.disk) == source.blocks()
    assert cloud.things() == [arrived.disk]


def test_a_quota_ends_an_upload_that_goes_on_when_there_is_room(cloud: Cloud, images: ImageImport) -> None:
    source, journal = small_disk(), Journal()
    call, after = cloud.calls.limited or (cloud.calls.write, 3)
    cloud.faults.on(call, "quota", after=after)
    with pytest.raises(QuotaExceeded, match="Ask for more"):
        images.import_disk(order(), source, journal)
    arrived = images.import_disk(order(), source, ignore, journal.kept[-1] if journal.kept else None)
    assert cloud.content(arrived.disk) == source.blocks()


def test_a_disk_that_the_cloud_gives_up_is_told(cloud: Cloud, images: ImageImport) -> None:
    if not cloud.calls.gives_disks_up:  # then the image of it is what may fail
        disk = images.import_disk(order(), small_disk(), ignore).disk
        cloud.faults.on(cloud.calls.create_image, "fail")
        with pytest.raises(OperationFailed, match="another step's token"):
            images.create_image(image_order(disk))
        return
    cloud.faults.on(cloud.calls.finish, "fail")
    for _ in range(2):
        with pytest.raises(OperationFailed, match="another step's token"):
            images.import_disk(order(), small_disk(), ignore)
    other = images.import_disk(order("disk/2"), small_disk(), ignore)
    assert images.get_snapshot(other.disk).state == "ready"


def test_disks_make_one_image(cloud: Cloud, images: ImageImport) -> None:
    disks = [
        images.import_disk(order(f"disk/{n}", f"vm-1-vd{n}"), small_disk(n), ignore).disk
        for n in range(cloud.calls.disks_of_an_image)
    ]
    cloud.faults.on(cloud.calls.create_image, "lose")
    made = images.create_image(image_order(*disks))
    assert images.create_image(image_order(*disks)).id == made.id
    for _ in looks():
        found = images.get_image(made.id)
        if found.state == "ready":
            break
    assert (found.state, found.firmware, found.disks) == ("ready", "uefi", tuple(disks))
    assert sorted(cloud.things()) == sorted([*disks, made.id])


def test_an_image_name_of_somebody_else_is_a_conflict(cloud: Cloud, images: ImageImport) -> None:
    disk = images.import_disk(order(), small_disk(), ignore).disk
    images.create_image(image_order(disk))
    with pytest.raises(Conflict, match="has the name vm-1-image already"):
        images.create_image(image_order(disk, step="another"))


def test_everything_can_be_cleaned_up_twice(cloud: Cloud, images: ImageImport) -> None:
    disk = images.import_disk(order(), small_disk(), ignore).disk
    image = images.create_image(image_order(disk)).id
    journal = Journal(deadly=3)
    with pytest.raises(Killed):
        images.import_disk(order("half"), small_disk(), journal)
    if cloud.calls.images_hold_disks:
        with pytest.raises(Conflict):
            images.delete_disk(disk)
    for _ in range(2):
        images.delete_image(image)
        images.delete_disk(disk)
        images.delete_disk(journal.kept[-1].disk)
    assert cloud.things() == []
    with pytest.raises(NotFound):
        images.get_snapshot(disk)
    with pytest.raises(NotFound):
        images.get_image(image)
