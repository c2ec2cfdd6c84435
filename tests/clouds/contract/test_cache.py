"""Contract of RegionalCache: objects are whole or not there, and a disk that stays is known by its own tag."""

from __future__ import annotations

import pytest

from clouds.cache import TAG, entry
from clouds.cache.index import Index
from clouds.capabilities import BlockDelta, ImageImport, RegionalCache
from clouds.disks.content import BLOCK
from clouds.disks.ledger import Ledger, Recorded
from clouds.errors import NotFound, NotPermitted
from models.clouds import DeltaOrder
from tests.clouds.faults import Kind
from tests.clouds.scene import Cloud, ignore, order, small_disk, tags, token

pytestmark = pytest.mark.capability("RegionalCache")


@pytest.fixture
def cache(cloud: Cloud) -> RegionalCache:
    assert cloud.adapter.cache is not None
    return cloud.adapter.cache


@pytest.fixture
def images(cloud: Cloud) -> ImageImport:
    assert cloud.adapter.image_import is not None
    return cloud.adapter.image_import


def test_the_settings_bound_it(cache: RegionalCache) -> None:
    assert cache.bounds is not None
    assert (cache.bounds.scope, cache.bounds.days) == ("shared", 30)


def test_what_is_put_is_got_until_it_is_deleted_and_twice_is_once(cache: RegionalCache) -> None:
    data = bytes(range(256)) * 5000
    for text in (b"", b"old", data, data):
        cache.put_object("n/a.blocks", text)
    assert cache.get_object("n/a.blocks") == data
    for _ in range(2):
        cache.delete_object("n/a.blocks")
    with pytest.raises(NotFound):
        cache.get_object("n/a.blocks")


def test_lists_are_of_one_prefix_and_whole_however_many_pages_they_take(cloud: Cloud, cache: RegionalCache) -> None:
    cloud.small_pages()
    names = [f"n/u/{number}.open" for number in range(5)]
    for name in (*names, "n/v/1.open"):
        cache.put_object(name, b"x" * 3)
    listed = list(cache.list_objects("n/u/"))
    assert [each.name for each in listed] == names
    assert {each.size for each in listed} == {3}
    assert all(each.modified.tzinfo for each in listed)
    assert cloud.faults.count(cloud.calls.list_objects) > 1
    assert list(cache.list_objects("nothing/")) == []


@pytest.mark.parametrize("kind", ["throttle", "unavailable", "drop", "lose"])
def test_calls_are_made_again(cloud: Cloud, cache: RegionalCache, kind: Kind) -> None:
    cloud.faults.on(cloud.calls.put_object, kind)
    cache.put_object("n/a", b"data")
    cloud.faults.on(cloud.calls.list_objects, kind)
    assert [each.name for each in cache.list_objects("n/")] == ["n/a"]


def test_a_missing_permission_is_told(cloud: Cloud, cache: RegionalCache) -> None:
    cloud.faults.on(cloud.calls.put_object, "permission", times=10)
    with pytest.raises(NotPermitted):
        cache.put_object("n/a", b"data")


def test_a_kept_disk_is_known_by_its_tag_and_keeps_its_others(cache: RegionalCache, images: ImageImport) -> None:
    disk = images.import_disk(order(), small_disk(), ignore).disk
    before = images.get_snapshot(disk).tags
    for _ in range(2):
        cache.keep_disk(disk, "a" * 64)
    there = images.get_snapshot(disk)
    assert there.tags == {**before, TAG: "a" * 64}
    assert there.state == "ready"


def test_a_disk_made_from_a_kept_one_is_whole_when_that_is_gone(
    cloud: Cloud, cache: RegionalCache, images: ImageImport
) -> None:
    """All of the way through an index, by an adapter's own means."""
    delta: BlockDelta | None = cloud.adapter.block_delta
    assert delta is not None
    assert cache.bounds is not None
    source, index = small_disk(), Index(cache, cache.bounds)
    ledger = Ledger(source.size)
    disk = images.import_disk(order(), Recorded(source, ledger), ignore).disk
    base, stored = entry.describe(disk, "vm-1-vda", source.size, ledger.digests, 1.0)
    index.add(base, stored)
    (found,) = index.bases()
    assert found == base
    fresh = Ledger(source.size, digests=index.digests(found))
    clone = source.copy()
    clone.write(BLOCK, b"its own")
    clone.zero(3 * BLOCK, BLOCK)
    before = cloud.sent()
    differs = tuple(fresh.differences(clone))
    wanted = DeltaOrder(name="vm-2-vda", token=token("move/lab/vm-2", "disk"), base=found.disk, tags=tags())
    made = delta.import_delta(wanted, Recorded(clone, fresh), differs, ignore)
    assert cloud.sent() - before == 2 * BLOCK
    index.remove(found, images.delete_disk)
    assert index.bases() == ()
    assert list(cache.list_objects("")) == []
    assert cloud.things() == [made.disk]
    assert cloud.content(made.disk) == clone.blocks()
