"""The content store: what is kept is given back, to those it is meant for, within its bounds."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import threading
from pathlib import Path

import pytest

from dwcp.encoding.store import Store, Visit, folder
from dwcp.encoding.store.folder import Entry
from dwcp.encoding.store.space import Item, choose, worth
from dwcp.encoding.store.visit import root_of
from models.store import Scope, StoreUse

from .store_scene import KEY, MIB, PAGE, in_a_child, keep, key, settings, some_pages, use


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(settings(tmp_path / "store"))


def test_a_visit_comes_back_as_it_was(store: Store) -> None:
    pages = some_pages(5)
    root = keep(store, pages, contents=b"where the pages were")
    assert root == root_of(b"where the pages were", b"".join(map(key, pages)))
    (about,) = store.visits(use(store))
    assert (about.root, about.vm, about.pages) == (root, "vm-1", 5)
    with open_(store, root) as visit:
        assert visit.contents == b"where the pages were"
        assert [visit.read(slot) for slot in range(5)] == pages
        assert bytes(visit.pages) == b"".join(pages)
        assert visit.failed() == []
        assert visit.read(5) is None
        assert visit.read(-1) is None
        into = bytearray(b"x" * PAGE * 4)
        assert visit.supply([4, 99, 0, 1], into) == [1]
        assert into == pages[4] + bytes(PAGE) + pages[0] + pages[1]


def open_(store: Store, root: bytes | None) -> Visit:
    assert root is not None
    visit = store.open(root)
    assert visit is not None
    return visit


def test_the_same_memory_has_the_same_root_on_every_host(tmp_path: Path) -> None:
    pages = some_pages(3)
    roots = {keep(Store(settings(tmp_path / host)), pages) for host in ("a", "b")}
    assert len(roots) == 1
    assert keep(Store(settings(tmp_path / "c")), pages, contents=b"other") not in roots


def test_nothing_is_made_until_something_is_written(store: Store, tmp_path: Path) -> None:
    assert store.visits(use(store)) == []
    assert store.open(bytes(16)) is None
    assert store.images() == []
    assert store.stats().used_bytes == 0
    assert store.prune().removed == 0
    assert store.verify().pages == 0
    assert not (tmp_path / "store").exists()


def test_the_folder_and_what_is_in_it_are_for_its_owner_alone(store: Store, tmp_path: Path) -> None:
    keep(store, some_pages(2))
    for path in [tmp_path / "store", *(tmp_path / "store").rglob("*")]:
        if path.name not in ("FORMAT", "lock"):
            assert not path.stat().st_mode & 0o077, path
    assert (tmp_path / "store").stat().st_mode & 0o777 == 0o700


def test_a_slab_is_on_the_disk_before_it_is_used(store: Store) -> None:
    draft = store.begin(use(store), 100)
    assert draft is not None
    found = os.fstat(draft.fd)
    assert found.st_size == 100 * PAGE
    assert found.st_blocks * 512 >= 100 * PAGE
    draft.abandon()
    draft.abandon()
    assert store.stats().drafts == 0


@pytest.mark.parametrize(("scope", "seen"), [("vm", "1"), ("tenant", "12"), ("site", "123")])
def test_a_scope_says_whose_visits_may_serve(store: Store, scope: Scope, seen: str) -> None:
    roots = {
        "1": keep(store, some_pages(2, 1), "vm-1", tenant="red"),
        "2": keep(store, some_pages(2, 2), "vm-2", tenant="red"),
        "3": keep(store, some_pages(2, 3), "vm-3", tenant="blue"),
    }
    asking = StoreUse(settings=store.settings, vm="vm-1", tenant="red", scope=scope)
    assert [one.root for one in store.visits(asking)] == [roots[name] for name in reversed(seen)]
    for name, root in roots.items():
        assert root is not None
        found = store.open(root, asking)
        assert (found is not None) == (name in seen)
        if found:
            found.close()


def test_a_new_visit_replaces_the_older_ones_of_its_vm_and_inherits_its_uses(store: Store) -> None:
    first, other = keep(store, some_pages(2, 1)), keep(store, some_pages(2, 2), "vm-2")
    for _ in range(3):
        open_(store, first).close()
    second = keep(store, some_pages(2, 3))
    assert second is not None
    assert first is not None
    assert store.open(first) is None
    assert [one.root for one in store.visits(use(store, scope="site"))] == [second, other]
    assert store.visits(use(store))[0].uses == 3


def test_as_many_visits_are_kept_as_the_settings_say(tmp_path: Path) -> None:
    store = Store(settings(tmp_path / "store", keep_visits=2))
    roots = [keep(store, some_pages(2, number)) for number in range(4)]
    assert [one.root for one in store.visits(use(store))] == [roots[3], roots[2]]


def test_a_visit_that_is_open_stays_until_it_is_closed(store: Store) -> None:
    pages = some_pages(3)
    first = keep(store, pages)
    with open_(store, first) as visit:
        second = keep(store, some_pages(3, 2))
        store.prune(0)
        assert visit.read(2) == pages[2]
        assert store.stats().visits == 1
    assert second is not None
    assert store.open(second) is None
    store.prune(0)
    assert store.stats().visits == 0


def test_open_in_another_process_is_open_too(store: Store) -> None:
    root = keep(store, some_pages(3))
    ready, leave = os.pipe(), os.pipe()

    def reader() -> None:
        with open_(Store(store.settings), root) as visit:
            os.write(ready[1], b"!")
            os.read(leave[0], 1)
            assert visit.read(1) == some_pages(3)[1]

    child = threading.Thread(target=in_a_child, args=(reader,))
    child.start()
    os.read(ready[0], 1)
    store.prune(0)
    assert store.stats().visits == 1
    os.write(leave[1], b"!")
    child.join()
    store.prune(0)
    assert store.stats().visits == 0


def test_a_copy_of_a_descriptor_elsewhere_keeps_no_committed_visit_locked(store: Store) -> None:
    draft = store.begin(use(store), 1)
    assert draft is not None
    os.pwrite(draft.fd, some_pages(1)[0], 0)
    copies = [os.dup(draft.fd), os.dup(draft._held.fd)]  # as a forked child has them
    open_(store, draft.commit(b"", key(some_pages(1)[0]), 1)).close()
    for copy in copies:
        os.close(copy)


def test_an_entry_replaced_while_it_is_locked_is_not_taken_for_the_one_that_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = tmp_path / "entry"
    entry.mkdir()
    real = fcntl.flock

    def slow(fd: int, how: int) -> None:
        entry.rename(tmp_path / "removed")
        entry.mkdir()
        real(fd, how)

    monkeypatch.setattr(fcntl, "flock", slow)
    assert folder.hold(entry) is None


def test_a_thread_that_reads_while_the_visit_is_closed_gets_a_page_or_none(store: Store) -> None:
    pages = some_pages(4)
    visit = open_(store, keep(store, pages))
    answers: list[bytes | None] = []
    started = threading.Event()

    def read() -> None:
        while (answer := visit.read(3)) is not None:
            answers.append(answer)
            started.set()

    thread = threading.Thread(target=read)
    thread.start()
    started.wait()
    visit.close()
    thread.join()
    assert set(answers) == {pages[3]}
    assert store.stats().damaged == 0


def test_a_mapping_outlives_its_visit(store: Store) -> None:
    pages = some_pages(2)
    visit = open_(store, keep(store, pages))
    view = memoryview(visit.pages)
    visit.close()
    store.prune(0)
    assert bytes(view) == b"".join(pages)


def test_the_limit_holds_for_drafts_too(tmp_path: Path) -> None:
    store = Store(settings(tmp_path / "store", limit_mib=4))
    first = store.begin(use(store), 600)
    assert first is not None
    assert store.begin(use(store, "vm-2"), 600) is None
    assert store.stats().used_bytes <= 4 * MIB
    first.abandon()
    second = store.begin(use(store, "vm-2"), 600)
    assert second is not None
    second.abandon()


def test_room_is_made_by_removing_what_is_worth_least(tmp_path: Path) -> None:
    store = Store(settings(tmp_path / "store", limit_mib=3))
    loved, stale = keep(store, some_pages(300, 1), "vm-1"), keep(store, some_pages(300, 2), "vm-2")
    for _ in range(5):
        open_(store, loved).close()
    third = keep(store, some_pages(300, 3), "vm-3")
    assert {one.root for one in store.visits(use(store, scope="site"))} == {loved, third}
    assert stale not in (loved, third)


def test_nothing_is_removed_for_what_would_not_fit_anyway(tmp_path: Path) -> None:
    store = Store(settings(tmp_path / "store", limit_mib=4))
    root = keep(store, some_pages(300))
    assert store.begin(use(store, "vm-2"), 2000) is None
    assert [one.root for one in store.visits(use(store))] == [root]


def test_the_visit_of_the_vm_under_way_goes_last(tmp_path: Path) -> None:
    store = Store(settings(tmp_path / "store", limit_mib=4))
    own = keep(store, some_pages(300, 1), "vm-1")
    open_(store, keep(store, some_pages(300, 2), "vm-2")).close()
    draft = store.begin(use(store), 400)
    assert draft is not None
    assert [one.root for one in store.visits(use(store, scope="site"))] == [own]
    draft.abandon()


def test_a_disk_that_is_nearly_full_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = Store(settings(tmp_path / "store", leave_free_mib=1 << 30))
    assert store.begin(use(store), 10) is None
    assert "of which 1073741824 MiB are to stay so" in caplog.text


def test_a_store_that_is_switched_off_does_nothing_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(settings(tmp_path / "store", limit_mib=0))
    assert store.begin(use(store), 10) is None
    assert "limit_mib is 0" in caplog.text
    assert "limit_mib is 0" in store.trouble()
    assert store.visits(use(store)) == []
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("call", ["posix_fallocate", "ftruncate", "mkdir", "open"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_disk_that_refuses_costs_the_visit_and_nothing_else(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, call: str, number: int
) -> None:
    root = keep(store, some_pages(3))

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        assert store.begin(use(store, "vm-2"), 10) is None
    assert os.strerror(number) in caplog.text
    assert store.stats().drafts in (0, 1)  # one that could not even be removed
    with open_(store, root) as visit:
        assert visit.read(0) == some_pages(3)[0]
    assert keep(store, some_pages(3), "vm-2") is not None
    assert store.stats().drafts == 0


@pytest.mark.parametrize("call", ["fsync", "rename", "write", "ftruncate"])
def test_a_commit_that_fails_leaves_the_visit_before(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, call: str
) -> None:
    first = keep(store, some_pages(3))
    draft = store.begin(use(store), 5)
    assert draft is not None
    pages = some_pages(5, 2)
    os.pwrite(draft.fd, b"".join(pages), 0)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "the disk is dying")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        committed = draft.commit(b"map", b"".join(map(key, pages)), 5)
    if call == "write":  # only the count of uses is written so
        assert committed is not None
        return
    assert committed is None
    assert "the disk is dying" in caplog.text
    assert [one.root for one in store.visits(use(store))] == [first]
    store.prune()
    assert store.stats().drafts == 0


@pytest.mark.parametrize(("used", "keys"), [(0, 0), (6, 6), (5, 4), (3, 5), (-1, 0)])
def test_a_commit_that_does_not_fit_its_draft_is_refused(store: Store, used: int, keys: int) -> None:
    draft = store.begin(use(store), 5)
    assert draft is not None
    assert draft.commit(b"", bytes(keys * KEY), used) is None
    assert store.stats().drafts == 0
    assert draft.commit(b"", bytes(5 * KEY), 5) is None


@pytest.mark.parametrize("slots", [0, -1, 1 << 32])
def test_a_draft_of_no_or_too_many_pages_is_refused(store: Store, slots: int) -> None:
    assert store.begin(use(store), slots) is None


def test_a_folder_removed_under_way_costs_the_visit_and_the_store_comes_back(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    draft = store.begin(use(store), 5)
    assert draft is not None
    (tmp_path / "store").rename(tmp_path / "gone")
    assert draft.commit(b"", bytes(5 * KEY), 5) is None
    assert "is not kept" in caplog.text
    assert store.visits(use(store)) == []
    assert keep(store, some_pages(2)) is not None


def test_a_store_of_another_format_is_put_aside_and_goes_first(tmp_path: Path) -> None:
    where = tmp_path / "store"
    old = Store(settings(where, limit_mib=4))
    keep(old, some_pages(500))
    (where / "FORMAT").write_bytes(b"novacron store 99\n")
    store = Store(settings(where, limit_mib=4))
    assert store.visits(use(store)) == []
    root = keep(store, some_pages(100, 2))
    assert [one.root for one in store.visits(use(store))] == [root]
    assert len(list(where.glob("aside/*/visits/*"))) == 1
    assert store.stats().used_bytes > 600 * PAGE
    assert keep(store, some_pages(500, 3)) is not None
    assert not (where / "aside").exists()


def test_a_process_whose_store_was_taken_over_leaves_it_alone(tmp_path: Path) -> None:
    where = tmp_path / "store"
    store = Store(settings(where))
    keep(store, some_pages(2))
    (where / "FORMAT").write_bytes(b"novacron store 99\n")
    assert store.begin(use(store), 5) is None
    assert (where / "FORMAT").read_bytes() == b"novacron store 99\n"
    assert not (where / "aside").exists()


def test_a_folder_with_other_files_is_not_taken_for_a_store(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "precious").write_text("data")
    store = Store(settings(tmp_path))
    assert store.begin(use(store), 5) is None
    assert "holds other files (precious)" in caplog.text
    assert "holds other files" in store.trouble()
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_folder_that_others_may_write_is_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int
) -> None:
    where = tmp_path / "store"
    store = Store(settings(where))
    keep(store, some_pages(2))
    where.chmod(mode)
    assert store.visits(use(store)) == []
    assert store.begin(use(store), 5) is None
    assert "writable by nobody else" in caplog.text


def test_a_lock_that_is_never_given_free_is_not_waited_for_for_ever(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    keep(store, some_pages(2))
    monkeypatch.setattr(folder, "LOCK_SECONDS", 0.0)
    with (tmp_path / "store" / "lock").open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert store.begin(use(store), 5) is None
    assert "was held by another process" in caplog.text
    assert store.visits(use(store))


def test_what_the_store_does_not_know_it_counts_but_never_removes(store: Store, tmp_path: Path) -> None:
    keep(store, some_pages(2))
    stranger = tmp_path / "store" / "visits" / "notes"
    stranger.write_bytes(b"x" * 100_000)
    (tmp_path / "store" / "drafts" / "note").write_text("hello")
    assert store.stats().used_bytes > 100_000
    store.prune(0)
    assert stranger.exists()
    assert keep(store, some_pages(2)) is not None


def test_two_processes_write_and_remove_at_once(tmp_path: Path) -> None:
    where = tmp_path / "store"

    def churn(seed: int) -> None:
        mine = Store(settings(where, limit_mib=3))
        for number in range(12):
            pages = some_pages(100, f"{seed}.{number}")
            root = keep(mine, pages, f"vm-{seed}.{number % 3}")
            if root is not None and (visit := mine.open(root)) is not None:
                with visit:
                    assert [visit.read(slot) for slot in range(100)] == pages

    children = [threading.Thread(target=in_a_child, args=(lambda seed=seed: churn(seed),)) for seed in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    store = Store(settings(where, limit_mib=3))
    assert 0 < store.stats().used_bytes <= 3 * MIB
    assert store.verify().damage == []
    assert store.stats().drafts == 0


DAY = 86400.0


def item(
    name: str = "a", *, age: float = 0, uses: int = 0, size: int = 100, kind: folder.Kind = "visits", **more: object
) -> Item:
    entry = Entry(kind, Path(name), int(1e9 * (1000 * DAY - age)), bytes(16), uses, 1000 * DAY - age, size)
    return Item(entry, str(more.pop("owner", name)), **more)  # type: ignore[arg-type]


def test_worth_falls_with_age_and_damage_and_rises_with_use() -> None:
    now = 1000 * DAY
    assert worth(item(age=DAY), now) < worth(item(), now)
    assert worth(item(uses=3), now) > worth(item(uses=1), now) > worth(item(), now)
    assert worth(item(healthy=0.5), now) == pytest.approx(worth(item(), now) / 2)
    assert worth(item(useless=True, uses=9), now) == 0
    assert worth(item(kind="images"), now) > worth(item(), now), "an index is small for what it knows"
    assert worth(item(kind="images", age=400 * DAY), now) < worth(item(), now)
    assert worth(item(age=-5 * DAY), now) == worth(item(), now), "a clock that was set back changes nothing"


def names(chosen: list[Item]) -> str:
    return "".join(one.entry.path.name for one in chosen)


def test_the_least_worth_goes_and_no_more_than_needed() -> None:
    now = 1000 * DAY
    old, older, fresh = item("o", age=DAY, size=10), item("p", age=2 * DAY, size=20), item("f", size=50)
    assert names(choose([fresh, old, older], 0, now)) == ""
    assert names(choose([fresh, old, older], 15, now)) == "p"
    assert names(choose([fresh, old, older], 25, now)) == "po"
    assert names(choose([fresh, old, older], 1000, now)) == "pof"
    assert names(choose([fresh, old, older], 45, now)) == "f", "one large one instead of all three"
    assert names(choose([fresh, old, older], 5, now, keep_last="p")) == "o"
    assert names(choose([item("d", useless=True), older], 5, now)) == "d"


def test_the_log_names_what_was_removed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    store = Store(settings(tmp_path / "store", limit_mib=2))
    keep(store, some_pages(300, 1), "vm-1")
    keep(store, some_pages(300, 2), "vm-2")
    assert "of vm-1 to make room" in caplog.text
