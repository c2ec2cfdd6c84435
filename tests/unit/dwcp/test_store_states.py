"""Any sequence of what processes, disks and people do to a store leaves one that is right, bounded and usable."""

from __future__ import annotations

import os
import shutil
import tempfile
from functools import partial
from pathlib import Path
from unittest import mock

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from dwcp.encoding.store import Draft, Store, Visit
from dwcp.encoding.store.visit import root_of

from .store_scene import MIB, in_a_child, keep, key, settings, some_pages, use

VMS = st.sampled_from(["vm-1", "vm-2", "vm-3"])
SEEDS = st.integers(0, 50)
SIZES = st.integers(1, 120)
CONTENTS = b"a map"


class StoreMachine(RuleBasedStateMachine):
    """The model: pages of every root that was ever written, and whether anything was damaged by hand."""

    drafts: Bundle[tuple[Draft, str, list[bytes]]] = Bundle("drafts")
    opened: Bundle[Visit] = Bundle("opened")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="store-states-"))
        self.sync = mock.patch.object(os, "fsync", return_value=None)
        self.sync.start()
        self.known: dict[bytes, list[bytes]] = {}
        self.damaged = False
        self.held: list[Draft | Visit] = []
        self.renew()

    def renew(self) -> None:
        self.store = Store(settings(self.folder / "store", limit_mib=1))

    def learn(self, pages: list[bytes]) -> bytes:
        root = root_of(CONTENTS, b"".join(map(key, pages)))
        self.known[root] = pages
        return root

    @initialize()
    def something_is_there(self) -> None:
        pages = some_pages(20, "first")
        assert keep(self.store, pages, "vm-1", CONTENTS) == self.learn(pages)

    @rule(target=drafts, vm=VMS, seed=SEEDS, size=SIZES, spare=st.integers(0, 100))
    def begin(self, vm: str, seed: int, size: int, spare: int):  # type: ignore[no-untyped-def]
        pages = some_pages(size, seed)
        draft = self.store.begin(use(self.store, vm), size + spare)
        if draft is None:
            return multiple()
        os.pwrite(draft.fd, b"".join(pages), 0)
        self.held.append(draft)
        return draft, vm, pages

    @rule(one=consumes(drafts))
    def commit(self, one: tuple[Draft, str, list[bytes]]) -> None:
        draft, vm, pages = one
        root = draft.commit(CONTENTS, b"".join(map(key, pages)), len(pages))
        assert root in (None, self.learn(pages))
        if root is not None:
            assert self.store.visits(use(self.store, vm))[0].root == root

    @rule(one=consumes(drafts))
    def abandon(self, one: tuple[Draft, str, list[bytes]]) -> None:
        one[0].abandon()

    @rule(target=opened, choice=st.integers(0, 9))
    def open(self, choice: int):  # type: ignore[no-untyped-def]
        found = self.store.visits(use(self.store, scope="site"))
        visit = self.store.open(found[choice % len(found)].root) if found else None
        assert visit is not None or not found or self.damaged
        if visit is None:
            return multiple()
        self.held.append(visit)
        return visit

    @rule(visit=opened)
    def read(self, visit: Visit) -> None:
        for slot, expected in enumerate(self.known[visit.root]):
            assert visit.read(slot) == expected or self.damaged

    @rule(visit=consumes(opened))
    def close(self, visit: Visit) -> None:
        visit.close()

    @rule(kib=st.integers(0, 1024))
    def prune(self, kib: int) -> None:
        self.store.prune(kib << 10)

    @rule(vm=VMS, seed=SEEDS, size=SIZES, step=st.integers(0, 60))
    def a_process_is_killed_at_work(self, vm: str, seed: int, size: int, step: int) -> None:
        pages = some_pages(size, seed)
        self.learn(pages)
        in_a_child(partial(keep, Store(self.store.settings), pages, vm, CONTENTS), step)

    @rule(choice=st.integers(0, 99), place=st.integers(0, 1 << 20), mask=st.integers(1, 255))
    def a_byte_is_changed(self, choice: int, place: int, mask: int) -> None:
        files = sorted((self.folder / "store").glob("visits/*/*"))
        if files and (size := (path := files[choice % len(files)]).stat().st_size):
            with path.open("r+b") as file:
                file.seek(place % size)
                (old,) = file.read(1)
                file.seek(place % size)
                file.write(bytes([old ^ mask]))
            self.damaged = True

    @rule(choice=st.integers(0, 99))
    def a_file_vanishes(self, choice: int) -> None:
        files = sorted((self.folder / "store").glob("visits/*/*"))
        if files:
            files[choice % len(files)].unlink()
            self.damaged = True

    @rule()
    def another_process_looks(self) -> None:
        self.renew()

    @invariant()
    def what_can_be_had_is_right(self) -> None:
        for about in self.store.visits(use(self.store, scope="site")):
            assert about.root in self.known
            visit = self.store.open(about.root)
            assert visit is not None or self.damaged
            if visit is not None:
                with visit:
                    for slot, expected in enumerate(self.known[about.root]):
                        page = visit.read(slot)
                        assert page == expected or (page is None and self.damaged)

    @invariant()
    def it_keeps_within_its_limit(self) -> None:
        assert self.store.stats().used_bytes <= MIB

    def teardown(self) -> None:
        for one in self.held:
            if isinstance(one, Draft):
                one.abandon()
            else:
                one.close()
        fresh = Store(self.store.settings)
        fresh.prune(0)
        left = fresh.stats()
        assert (left.visits, left.drafts) == (0, 0)
        assert keep(fresh, some_pages(3), contents=CONTENTS) is not None
        self.sync.stop()
        shutil.rmtree(self.folder)


TestAnySequence = StoreMachine.TestCase
TestAnySequence.settings = hypothesis_settings(max_examples=40, stateful_step_count=25)
