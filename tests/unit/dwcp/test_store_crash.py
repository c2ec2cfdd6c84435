"""kill -9 at every point: the store opens, has what was there before or what was being written, and nothing is left."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from dwcp.encoding.store import Store

from .store_scene import PAGE, in_a_child, keep, key, settings, some_pages, use

OLD, NEW, OTHER = some_pages(40, "old"), some_pages(40, "new"), some_pages(40, "other")
MAX_STEPS = 400


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed process loses nothing that it has written; only a power cut asks for fsync, and none happens here."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


def roots(store: Store) -> set[bytes]:
    """Of all visits; each is read to its last page."""
    found = set()
    for about in store.visits(use(store, scope="site")):
        visit = store.open(about.root)
        assert visit is not None
        with visit:
            assert visit.failed() == []
        found.add(about.root)
    return found


def every_kill(tmp_path: Path, work: Callable[[Store], object], look: Callable[[Store, bool], None]) -> int:
    """`work` in a child that dies before its 1st, 2nd, ... call, each time on a new folder; then `look`."""
    for step in range(MAX_STEPS):
        folder = tmp_path / str(step)
        before = Store(settings(folder, limit_mib=1, images=(str(tmp_path / "disk.img"),)))
        keep(before, OLD, spare=0)
        lived = in_a_child(partial(work, before), step)
        store = Store(before.settings)
        look(store, lived)
        assert keep(store, OTHER, "vm-9", spare=0) is not None, f"after step {step} nothing can be written"
        assert store.stats().drafts == 0, f"after step {step} something is left"
        assert store.stats().used_bytes <= 1 << 20
        assert store.verify().damage == []
        if lived:
            return step
    raise AssertionError("it never ends")


@pytest.fixture
def old_and_new(tmp_path: Path) -> tuple[bytes, bytes]:
    old, new = keep(Store(settings(tmp_path / "a")), OLD), keep(Store(settings(tmp_path / "b")), NEW)
    assert old is not None
    assert new is not None
    return old, new


def test_a_commit_happens_or_does_not(tmp_path: Path, old_and_new: tuple[bytes, bytes]) -> None:
    old, new = old_and_new
    seen = set()

    def look(store: Store, lived: bool) -> None:
        found = roots(store)
        assert found in ({old}, {new}, {old, new})
        assert found == {new} or not lived
        seen.update(found)

    assert every_kill(tmp_path, lambda store: keep(store, NEW), look) > 30
    assert seen == {old, new}


def test_the_first_visit_of_a_new_store_happens_or_does_not(tmp_path: Path, old_and_new: tuple[bytes, bytes]) -> None:
    _, new = old_and_new
    for step in range(MAX_STEPS):
        store = Store(settings(tmp_path / str(step) / "made" / "here"))
        lived = in_a_child(partial(keep, store, NEW), step)
        after = Store(store.settings)
        assert roots(after) in ({new}, set())
        assert keep(after, OTHER, "vm-9") is not None, f"after step {step} nothing can be written"
        assert after.stats().drafts == 0
        if lived:
            assert new in roots(after)
            return
    raise AssertionError("it never ends")


def test_making_room_removes_whole_visits_or_nothing(tmp_path: Path, old_and_new: tuple[bytes, bytes]) -> None:
    old, _ = old_and_new

    def crowd(store: Store) -> None:
        draft = store.begin(use(store, "vm-2"), 210)
        if draft is not None:
            draft.abandon()

    def look(store: Store, lived: bool) -> None:
        assert roots(store) in ({old}, set())
        assert not (lived and roots(store))

    assert every_kill(tmp_path, crowd, look) > 10


def test_pruning_removes_whole_visits_or_nothing(tmp_path: Path, old_and_new: tuple[bytes, bytes]) -> None:
    old, _ = old_and_new

    def look(store: Store, lived: bool) -> None:
        assert roots(store) in ({old}, set())
        assert not (lived and roots(store))

    every_kill(tmp_path, lambda store: store.prune(0), look)


def test_an_image_is_indexed_or_is_not(tmp_path: Path) -> None:
    blocks = some_pages(20, "disk")
    (tmp_path / "disk.img").write_bytes(b"".join(blocks))

    def look(store: Store, lived: bool) -> None:
        for image in store.images():
            assert store.image_keys(image.root) == b"".join(map(key, blocks))
            assert store.read_image(image.root, 7) == blocks[7]
        assert store.images() or not lived
        store.close()

    assert every_kill(tmp_path, lambda store: store.index_images(), look) > 20


def test_another_index_replaces_the_first_or_does_not(tmp_path: Path) -> None:
    image = tmp_path / "disk.img"

    def again(store: Store) -> None:
        image.write_bytes(b"".join(some_pages(9, "second")))
        os.utime(image, ns=(1, 2))
        store.index_images()

    for step in range(MAX_STEPS):
        image.write_bytes(b"".join(some_pages(9, "first")))
        os.utime(image, ns=(1, 1))
        store = Store(settings(tmp_path / str(step), images=(str(image),)))
        store.index_images()
        lived = in_a_child(partial(again, store), step)
        after = Store(store.settings)
        found = after.images()
        assert len(found) <= 1
        for one in found:
            assert after.read_image(one.root, 3) == image.read_bytes()[3 * PAGE : 4 * PAGE]
        after.close()
        assert not after.index_images().skipped
        assert after.stats().images == 1
        assert after.stats().drafts == 0
        if lived:
            return
    raise AssertionError("it never ends")


def test_putting_another_format_aside_is_done_again_when_it_was_killed(tmp_path: Path) -> None:
    for step in range(MAX_STEPS):
        folder = tmp_path / str(step)
        keep(Store(settings(folder)), OLD)
        (folder / "FORMAT").write_bytes(b"novacron store 99\n")
        store = Store(settings(folder))
        lived = in_a_child(partial(keep, store, NEW, "vm-2"), step)
        after = Store(store.settings)
        assert keep(after, NEW, "vm-2") is not None
        assert len(roots(after)) == 1
        if lived:
            return
    raise AssertionError("it never ends")
