"""Contract of BlockDelta: base and changes together are the new disk, in both directions."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clouds.capabilities import BlockDelta, ImageImport
from clouds.disks.content import BLOCK, content_hash, touched
from clouds.errors import BadDisk, Conflict, Invalid, NotFound
from models.clouds import DeltaOrder
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
    tags,
    token,
)

pytestmark = pytest.mark.capability("BlockDelta")


@pytest.fixture
def images(cloud: Cloud) -> ImageImport:
    assert cloud.adapter.image_import is not None
    return cloud.adapter.image_import


@pytest.fixture
def delta(cloud: Cloud) -> BlockDelta:
    assert cloud.adapter.block_delta is not None
    return cloud.adapter.block_delta


class _Large(MemoryDisk):
    """Says its size, and holds nothing."""

    def __post_init__(self) -> None:
        self.held = bytearray()


def delta_order(base: str, step: str = "round/1") -> DeltaOrder:
    return DeltaOrder(name="vm-1-vda", token=token("move/lab/vm-1", step), base=base, tags=tags())


def test_only_what_changed_is_sent_zeros_too(cloud: Cloud, images: ImageImport, delta: BlockDelta) -> None:
    source = small_disk()
    base = images.import_disk(order(), source, ignore)
    before = cloud.sent()
    source.write(BLOCK, b"new")
    source.zero(3 * BLOCK, BLOCK)
    moved = delta.import_delta(delta_order(base.disk), source, ((BLOCK, 3), (3 * BLOCK, BLOCK)), ignore)
    assert cloud.sent() - before == 2 * BLOCK
    assert moved.blocks == 2
    assert cloud.content(moved.disk) == source.blocks()
    assert images.get_snapshot(moved.disk).parent == base.disk
    assert 3 in cloud.content(base.disk), "the base is as it was"


def test_rounds_follow_each_other_and_come_home_as_a_difference(
    cloud: Cloud, images: ImageImport, delta: BlockDelta
) -> None:
    source = small_disk()
    disks = [images.import_disk(order(), source, ignore).disk]
    for number in range(2):
        source.write((5 + number) * BLOCK, b"round")
        changed = (((5 + number) * BLOCK, 5),)
        disks.append(delta.import_delta(delta_order(disks[-1], f"round/{number}"), source, changed, ignore).disk)
    assert cloud.content(disks[2]) == source.blocks()
    if not cloud.calls.deltas_are_of_one_line:
        return
    home = small_disk()
    reads = cloud.faults.count(cloud.calls.read)
    delta.export_delta(disks[0], disks[2], home, ignore)
    assert home.held == source.held
    assert cloud.faults.count(cloud.calls.read) - reads == 2


writes = st.lists(st.tuples(st.integers(0, 6 * BLOCK), st.integers(1, BLOCK), st.integers(0, 255)), max_size=4)


@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=writes, second=writes, number=st.integers(0, 2**62))
def test_base_and_changes_are_the_new_disk(
    cloud: Cloud,
    images: ImageImport,
    delta: BlockDelta,
    first: list[tuple[int, int, int]],
    second: list[tuple[int, int, int]],
    number: int,
) -> None:
    source = MemoryDisk(7 * BLOCK + 100)

    def apply(pieces: list[tuple[int, int, int]]) -> None:
        for at, length, value in pieces:
            source.write(at, bytes([value]) * length)

    apply(first)
    old = source.copy()
    base = images.import_disk(order(f"disk/{number}/{first}"), source, ignore)
    apply(second)
    changed = tuple(
        (at, min(BLOCK, source.size - at))
        for at in range(0, source.size, BLOCK)
        if old.held[at : at + BLOCK] != source.held[at : at + BLOCK]
    )
    step = f"delta/{number}/{first}/{second}"
    moved = delta.import_delta(delta_order(base.disk, step), source, changed, ignore)
    assert cloud.content(moved.disk) == source.blocks()
    if not cloud.calls.deltas_are_of_one_line:
        return
    delta.export_delta(base.disk, moved.disk, old, ignore)
    assert old.held == source.held
    assert content_hash(old) == content_hash(source)


def test_what_a_guest_wrote_comes_home_as_a_difference(cloud: Cloud, images: ImageImport, delta: BlockDelta) -> None:
    instances, export = cloud.adapter.instances, cloud.adapter.image_export
    assert instances is not None
    assert export is not None
    instance = instances.create_instance(instance_order(cloud, boot_image(cloud)), token("move/lab", "run"))
    volume = instances.get_instance(instance.id).disks[0].disk
    disks = []
    for number in range(2):
        snapshot = export.create_snapshot(volume, token("move/lab", f"snapshot/{number}"))
        for _ in looks():
            if images.get_snapshot(snapshot.id).state == "ready":
                break
        disks.append(snapshot.id)
        cloud.guest_writes(volume, 1, b"other than before")
        cloud.guest_writes(volume, 9, b"new")
    home = small_disk(0, 1)
    reads = cloud.faults.count(cloud.calls.read)
    size = images.get_snapshot(disks[1]).size
    assert list(touched(size, delta.changed(disks[0], disks[1]))) == [1, 9]
    assert cloud.faults.count(cloud.calls.read) == reads, "what changed is told, not read"
    moved = delta.export_delta(disks[0], disks[1], home, ignore)
    assert (moved.blocks, cloud.faults.count(cloud.calls.read) - reads) == (2, 2)
    assert home.blocks() == cloud.content(disks[1])


def test_a_delta_that_dies_goes_on(cloud: Cloud, images: ImageImport, delta: BlockDelta) -> None:
    source = small_disk()
    base = images.import_disk(order(), source, ignore).disk
    before = cloud.sent()
    source.held[: 10 * BLOCK] = bytes(10 * BLOCK)
    changed = ((0, 10 * BLOCK),)
    journal = Journal(deadly=5)
    with pytest.raises(Killed):
        delta.import_delta(delta_order(base), source, changed, journal)
    moved = delta.import_delta(delta_order(base), source, changed, ignore, journal.kept[-1])
    assert cloud.content(moved.disk) == source.blocks()
    assert sorted(cloud.things()) == sorted([base, moved.disk])
    assert cloud.sent() - before <= (10 + cloud.settings.calls.parallel) * BLOCK


def test_what_cannot_be_a_base_is_refused(cloud: Cloud, images: ImageImport, delta: BlockDelta) -> None:
    source, journal = small_disk(), Journal(deadly=2)
    with pytest.raises(NotFound):
        delta.import_delta(delta_order("snap-0123456789abcdef0"), source, ((0, 1),), ignore)
    with pytest.raises(Killed):
        images.import_disk(order(), source, journal)
    with pytest.raises(Conflict, match="needs a base that is complete"):
        delta.import_delta(delta_order(journal.kept[-1].disk), source, ((0, 1),), ignore)
    base = images.import_disk(order("other"), source, ignore)
    with pytest.raises(BadDisk, match="sent whole"):
        delta.import_delta(delta_order(base.disk), _Large(base.size + 1), ((0, 1),), ignore)


def test_disks_of_two_lines_have_no_difference(cloud: Cloud, images: ImageImport, delta: BlockDelta) -> None:
    one, other = (images.import_disk(order(f"disk/{n}"), small_disk(), ignore).disk for n in range(2))
    with pytest.raises(Invalid):
        delta.export_delta(one, other, small_disk(), ignore)
    with pytest.raises(Invalid):
        delta.changed(one, other)
