"""Whatever happens to the store's files: a page that comes out of it is the page that went in, or none comes out."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwcp.encoding.store import Store, Visit
from dwcp.encoding.store.folder import FORMAT
from dwcp.encoding.store.images import BY_HAND, RAW, FileState, ImageHeader
from dwcp.encoding.store.reading import digest
from dwcp.encoding.store.visit import HEADER_BYTES, VisitHeader
from dwcp.errors import StoreDamaged

from .store_scene import PAGE, keep, page, settings, some_pages, use

PAGES = some_pages(8)
IMAGE = b"".join(some_pages(8, "image"))


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store of one visit and one indexed image."""
    folder = tmp_path_factory.mktemp("master")
    (folder / "disk.img").write_bytes(IMAGE)
    with Store(settings(folder / "store", images=(str(folder / "disk.img"),))) as store:
        keep(store, PAGES, contents=b"a map of some length " * 20)
        assert store.index_images().blocks == 8
    return folder


def whole_or_nothing(store: Store) -> int:
    """Read all there is; how many pages came out. Fails on a wrong one."""
    came = 0
    for about in store.visits(use(store)):
        visit = store.open(about.root)
        if visit is None:
            continue
        with visit:
            assert visit.contents == b"a map of some length " * 20
            for slot in range(len(PAGES)):
                if (data := visit.read(slot)) is not None:
                    assert data == PAGES[slot]
                    came += 1
    for image in store.images():
        keys = store.image_keys(image.root)
        assert not keys or digest(keys) == image.root
        for index in range(image.blocks + 1):
            if (data := store.read_image(image.root, index)) is not None:
                assert data == IMAGE[index * PAGE :][:PAGE]
                came += 1
    store.close()
    return came


def file_of(folder: Path, name: str) -> Path:
    return next(path for path in [*folder.rglob("*")] if path.name == name)


FILES = ["visit", "slab", "index", "keys", "blocks", "FORMAT", "lock", "disk.img"]


@pytest.mark.parametrize("name", FILES)
@given(places=st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(1, 255)), min_size=1, max_size=4))
def test_flipped_bits_never_give_a_wrong_page(
    master: Path, tmp_path_factory: pytest.TempPathFactory, name: str, places: list[tuple[int, int]]
) -> None:
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(master / "store", folder / "store", copy_function=shutil.copy2)
    image = master / "disk.img"
    path = image if name == "disk.img" else file_of(folder, name)
    before, seen = path.read_bytes(), path.stat()
    damaged = bytearray(before or b"?")
    for place, mask in places:
        damaged[place % len(damaged)] ^= mask
    store = Store(settings(folder / "store", images=(str(image),)))
    try:
        with path.open("r+b") as file:  # in place: an image keeps its inode
            file.write(damaged)
        if name == "disk.img":
            os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))
        came = whole_or_nothing(store)
        assert came <= 16
        assert whole_or_nothing(store) == came
    finally:
        if name == "disk.img":
            with path.open("r+b") as file:
                file.write(before)
            os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))
        shutil.rmtree(folder)


@pytest.mark.parametrize("name", ["visit", "slab", "index", "keys", "blocks", "FORMAT"])
@pytest.mark.parametrize("change", ["cut", "empty", "gone", "longer", "other", "folder", "link"])
def test_a_file_that_is_not_what_it_was_is_not_used_and_not_fatal(
    master: Path, tmp_path: Path, name: str, change: str
) -> None:
    shutil.copytree(master / "store", tmp_path / "store", copy_function=shutil.copy2)
    path = file_of(tmp_path, name)
    data = path.read_bytes()
    path.unlink()
    match change:
        case "cut":
            path.write_bytes(data[:-1])
        case "empty":
            path.write_bytes(b"")
        case "longer":
            path.write_bytes(data + b"x")
        case "other":
            path.write_bytes(random.Random(1).randbytes(len(data)))
        case "folder":
            path.mkdir()
        case "link":
            path.symlink_to(master / "disk.img")
    store = Store(settings(tmp_path / "store", images=(str(master / "disk.img"),)))
    assert whole_or_nothing(store) <= 8
    store.stats()
    store.verify()
    store.prune()
    assert whole_or_nothing(store) <= 8
    if not (name == "FORMAT" and change in ("folder", "link")):
        assert keep(store, PAGES, contents=b"a map of some length " * 20) is not None
        assert whole_or_nothing(store) >= 8


def test_a_damaged_page_is_marked_counted_and_never_tried_again(master: Path, tmp_path: Path) -> None:
    shutil.copytree(master / "store", tmp_path / "store", copy_function=shutil.copy2)
    store = Store(settings(tmp_path / "store"))
    slab = file_of(tmp_path, "slab")
    with slab.open("r+b") as file:
        file.seek(3 * PAGE)
        file.write(b"?")
    (about,) = store.visits(use(store))
    with open_(store, about.root) as visit:
        assert visit.failed() == [3]
    assert store.stats().damaged == 1
    with slab.open("r+b") as file:  # as it was again, yet marked: a disk that lies once lies twice
        file.seek(3 * PAGE)
        file.write(PAGES[3][:1])
    with open_(store, about.root) as visit:
        assert visit.read(3) is None
        assert visit.read(4) == PAGES[4]


def test_verify_finds_what_moves_would_find(master: Path, tmp_path: Path) -> None:
    shutil.copytree(master / "store", tmp_path / "store", copy_function=shutil.copy2)
    store = Store(settings(tmp_path / "store", images=(str(master / "disk.img"),)))
    told: list[tuple[str, int, int]] = []
    clean = store.verify(lambda *progress: told.append(progress))
    assert (clean.visits, clean.images, clean.pages, clean.damage) == (1, 1, 16, [])
    assert {done for _, done, _ in told} == {8 * PAGE}
    with file_of(tmp_path, "slab").open("r+b") as file:
        file.write(b"??")
    found = store.verify()
    assert [(one.pages, one.found_now) for one in found.damage] == [(1, True)]
    again = store.verify()
    assert [(one.pages, one.found_now) for one in again.damage] == [(1, False)]
    with file_of(tmp_path, "visit").open("r+b") as file:
        file.seek(HEADER_BYTES + 3)
        file.write(b"?")
    broken = store.verify()
    assert [(one.pages, one.found_now) for one in broken.damage] == [(0, True)]
    assert store.stats().damaged == 8
    assert store.visits(use(store)) == []
    assert store.prune().removed == 1
    assert store.stats().damaged == 0


def open_(store: Store, root: bytes) -> Visit:
    visit = store.open(root)
    assert visit is not None
    return visit


@given(
    st.builds(
        VisitHeader,
        slots=st.integers(1, 2**32 - 2),
        contents_bytes=st.integers(0, 2**63),
        root=st.binary(min_size=16, max_size=16),
        vm=st.text(min_size=1, max_size=64),
        tenant=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", fullmatch=True),
    ),
    st.integers(0, HEADER_BYTES - 1),
    st.integers(1, 255),
)
def test_a_visits_header_comes_back_or_is_damaged(head: VisitHeader, place: int, mask: int) -> None:
    data = bytearray(head.pack())
    assert len(data) == HEADER_BYTES
    assert VisitHeader.parse(bytes(data) + b"contents") == head
    data[place] ^= mask
    with pytest.raises(StoreDamaged):
        VisitHeader.parse(bytes(data))


@given(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=200),
    st.integers(0, 400),
    st.booleans(),
)
def test_an_indexs_header_comes_back_or_is_damaged(path: str, place: int, by_hand: bool) -> None:
    head = ImageHeader(RAW, by_hand, 7, FileState(1, -2, 3), page(1)[:16], page(2)[:16], "/" + path)
    data = bytearray(head.pack())
    assert ImageHeader.parse(bytes(data)) == head
    data[place % len(data)] ^= 0x80
    with pytest.raises(StoreDamaged):
        ImageHeader.parse(bytes(data))


@given(st.binary(max_size=700))
def test_any_bytes_are_a_header_or_damaged(data: bytes) -> None:
    for parse in (VisitHeader.parse, ImageHeader.parse):
        for whole in (data, b"NCVISIT\n" + data, b"NCIMAGE\n" + data):
            with pytest.raises(StoreDamaged):
                parse(whole)


def test_the_formats_are_what_the_documentation_says() -> None:
    """Golden: a change here is another format version."""
    visit = VisitHeader(5, 300, bytes(range(16)), "vm", "red").pack()
    assert (
        visit[:56].hex()
        == "4e435649534954"
        + "0a"
        + "0001"
        + "0000"
        + "00000005"
        + "000000000000012c"
        + bytes(range(16)).hex()
        + "0002"
        + "766d"
        + "000000000000000000000000"
    )
    assert visit[298:302] == b"\x03red"
    assert visit[496:].hex() == "114121055c779617996571f2e9340d65"
    index = ImageHeader(RAW, True, 7, FileState(1, 2, 3), bytes(range(16)), bytes(16), "/x").pack()
    assert (
        index[:44].hex()
        == "4e43494d414745"
        + "0a"
        + "0001"
        + "00"
        + "01"
        + "00000007"
        + "0000000000000001"
        + "0000000000000002"
        + "0000000000000003"
        + "00010203"
    )
    assert index[128:] == b"/x"
    assert index[112:128].hex() == "c98d82c9f3afbd0b65a48aeb64cba354"
    assert BY_HAND == 1
    assert FORMAT == b"novacron store 1\n"
