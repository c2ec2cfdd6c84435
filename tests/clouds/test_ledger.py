"""The ledger of what a cloud has of a disk: it finds every difference, survives a crash, and is no other move's."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clouds.disks.content import BLOCK, blocks, content_hash
from clouds.disks.ledger import Ledger, Recorded
from clouds.errors import SourceChanged
from tests.clouds.scene import MemoryDisk, small_disk

writes = st.lists(st.tuples(st.integers(0, 6 * BLOCK), st.integers(1, BLOCK), st.integers(0, 255)), max_size=4)


def copied(source: MemoryDisk) -> Ledger:
    """As after a full copy."""
    ledger = Ledger(source.size)
    for _ in blocks(Recorded(source, ledger)):
        pass
    return ledger


@given(first=writes, second=writes)
def test_what_differs_is_found_exactly_and_sending_it_makes_both_one(
    first: list[tuple[int, int, int]], second: list[tuple[int, int, int]]
) -> None:
    source = MemoryDisk(7 * BLOCK + 100)
    for at, length, value in first:
        source.write(at, bytes([value]) * length)
    before, ledger = source.copy(), copied(source)
    assert ledger.content() == content_hash(source)
    for at, length, value in second:
        source.write(at, bytes([value]) * length)
    differs = tuple(ledger.differences(source))
    changed = [
        at for at in range(0, source.size, BLOCK) if before.held[at : at + BLOCK] != source.held[at : at + BLOCK]
    ]
    assert [at for at, _ in differs] == changed
    assert ledger.compare(source) == (differs, content_hash(source))
    for _ in blocks(Recorded(source, ledger), differs):
        pass
    assert ledger.content() == content_hash(source)


def test_a_bitmap_narrows_what_is_read_and_blocks_that_only_seem_changed_are_left_out() -> None:
    source = small_disk()
    ledger = copied(source)
    source.write(2 * BLOCK, b"new")
    assert tuple(ledger.differences(source, ((BLOCK, 3 * BLOCK),))) == ((2 * BLOCK, BLOCK),)


def test_it_is_kept_beside_the_image_and_read_back(tmp_path: Path) -> None:
    source, path = small_disk(), tmp_path / "vm.qcow2.novacron-cloud"
    ledger = copied(source)
    ledger.disk = "snap-1"
    ledger.write(path, "move-1")
    assert Ledger.read(path, "move-1") == ledger
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("what", ["gone", "cut", "another move", "no header"])
def test_one_that_cannot_be_trusted_is_not_used(tmp_path: Path, what: str) -> None:
    path = tmp_path / "ledger"
    copied(small_disk()).write(path, "move-1")
    raw = path.read_bytes()
    if what == "gone":
        path.unlink()
    elif what == "cut":
        path.write_bytes(raw[:-1])
    elif what == "no header":
        path.write_bytes(raw[20:])
    with pytest.raises(SourceChanged, match="sent whole"):
        Ledger.read(path, "move-2" if what == "another move" else "move-1")


def test_half_a_block_is_no_part_of_a_ledger() -> None:
    source = small_disk()
    with pytest.raises(ValueError, match="whole blocks"):
        Recorded(source, Ledger(source.size)).read(0, 100)
