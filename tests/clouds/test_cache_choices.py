"""What the cache decides: which base, what is kept, what goes. No cloud."""

from __future__ import annotations

import dataclasses
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clouds.cache import choose, entry
from clouds.cache.choose import DAY, GIB, Worth
from clouds.cache.entry import PROBES, Base
from clouds.disks.content import BLOCK
from clouds.errors import Damaged
from models.clouds import CacheBounds

NOW = 1000 * DAY
BOUNDS = CacheBounds(most_gib=10, days=30)


def digests(blocks: dict[int, int]) -> dict[int, bytes]:
    return {index: hashlib.sha256(bytes([what])).digest() for index, what in blocks.items()}


def base(name: str, blocks: dict[int, int], size: int = 1000 * BLOCK, made: float = NOW) -> Base:
    return entry.describe(f"snap-{name}", name, size, digests(blocks), made)[0]


def held(name: str, gib: int, made: float = NOW) -> Base:
    return dataclasses.replace(base(name, {0: 1}), blocks=gib * GIB // BLOCK, made=made, content=name)


def looked(blocks: dict[int, int]) -> dict[int, str]:
    return {index: digest.hex() for index, digest in digests(blocks).items()}


contents = st.dictionaries(st.integers(0, 199), st.integers(0, 3), max_size=60)


@given(contents, st.integers(200, 230))
def test_a_base_is_read_as_it_was_written(blocks: dict[int, int], length: int) -> None:
    made, stored = entry.describe("disk/1", "vm", length * BLOCK - 7, digests(blocks), NOW)
    assert entry.read(entry.write(made)) == made
    assert entry.unpack(made, stored) == digests(blocks)


@given(contents.filter(bool), st.data())
def test_a_list_of_another_disk_or_with_one_byte_changed_is_not_believed(
    blocks: dict[int, int], data: st.DataObject
) -> None:
    made, stored = entry.describe("disk/1", "vm", 200 * BLOCK, digests(blocks), NOW)
    at = data.draw(st.integers(0, len(stored) - 1))
    with pytest.raises(Damaged):
        entry.unpack(made, stored[:at] + bytes([stored[at] ^ 1]) + stored[at + 1 :])
    other, theirs = entry.describe("disk/2", "vm", 200 * BLOCK, digests({**blocks, 0: 9}), NOW)
    with pytest.raises(Damaged):
        entry.unpack(made, theirs)
    with pytest.raises(Damaged):  # a head that fits its list, whose content is not that of the disk's tag
        entry.unpack(dataclasses.replace(other, content=made.content), theirs)


@pytest.mark.parametrize(
    "harm",
    [b"", b"[]", b"5", b"{}", b'{"format": 1}', b"\xff", b'{"format": 1, "probes": 5}'],
)
def test_a_head_that_is_none_is_damaged(harm: bytes) -> None:
    with pytest.raises(Damaged):
        entry.read(harm)


@pytest.mark.parametrize(
    "change", [{"blocks": 10**6}, {"size": -1}, {"probes": [[5000, "x"]]}, {"probes": [[1, "x"]] * 65}, {"disk": 5}]
)
def test_a_head_whose_figures_make_no_sense_is_damaged(change: dict[str, object]) -> None:
    import json

    told = json.loads(entry.write(base("a", {1: 1}))) | change
    with pytest.raises(Damaged):
        entry.read(json.dumps(told).encode())


def test_another_version_is_left_alone() -> None:
    assert entry.read(entry.write(base("a", {1: 1})).replace(b'"format": 1', b'"format": 2')) is None


def test_the_same_blocks_are_compared_of_all_bases() -> None:
    """So few are read of the disk that is to be sent, however many bases there are."""
    bases = [base(str(n), {index: (index * n) % 251 for index in range(900)}) for n in range(1, 11)]
    assert len(choose.asked(bases)) == PROBES


def test_the_base_with_most_in_common_is_picked() -> None:
    mine = {index: 7 for index in range(300)}
    near, far = base("near", {**mine, 5: 1, 6: 1}), base("far", {index: index % 2 * 7 for index in range(300)})
    choice = choose.pick([far, near], looked(mine))
    assert choice.base == near
    assert "of the blocks compared" in choice.reason
    small = base("small", {index: 7 for index in range(20)})
    assert choose.pick([small, near], looked(mine)).base == near, "it has less of the disk, though all of it is shared"


def test_without_anything_in_common_none_is_picked() -> None:
    mine = looked({index: 7 for index in range(300)})
    assert choose.pick([], mine).base is None
    choice = choose.pick([base("other", {index: 9 for index in range(300)})], mine)
    assert choice.base is None
    assert "snap-other, has 0% in common" in choice.reason


def test_a_base_of_another_size_is_no_candidate() -> None:
    assert choose.candidates([base("a", {1: 1}, 1000 * BLOCK), base("b", {1: 1}, 999 * BLOCK)], 999 * BLOCK) == (
        base("b", {1: 1}, 999 * BLOCK),
    )


@given(st.integers(0, 1000), st.integers(0, 1000))
def test_a_start_from_a_base_never_sends_more_than_the_whole_disk(whole: int, differing: int) -> None:
    verdict = choose.worth_it(whole, differing)
    assert verdict.reason
    if verdict.yes and whole:
        assert differing <= choose.GAIN * whole


@pytest.mark.parametrize(
    ("fresh", "saved", "there", "kept", "why"),
    [
        (held("a", 2), 0, [], True, "nothing like it"),
        (held("a", 2), GIB, [held("b", 2)], True, "nothing like it"),
        (held("a", 2), 2 * GIB - 1, [held("b", 2)], False, "a base that is kept already has 100%"),
        (held("a", 11), 0, [], False, "holds 11.0 GiB, and 10 are kept at most"),
        (held("a", 2), 0, [dataclasses.replace(held("b", 2), content="a")], False, "snap-b holds the same"),
        (held("a", 2), 0, [held("a", 2)], True, "kept already"),
        (dataclasses.replace(held("a", 2), size=5 << 40), 0, [], False, "its list would be too long"),
        (base("a", {}), 0, [], False, "empty"),
    ],
)
def test_what_is_kept(fresh: Base, saved: int, there: list[Base], kept: bool, why: str) -> None:
    verdict = choose.keep(fresh, saved, there, {}, BOUNDS, NOW)
    assert verdict.yes == kept
    assert why in verdict.reason


def test_what_would_go_at_once_is_not_kept() -> None:
    good = held("good", 9)
    worths = {good.disk: Worth(uses=2, saved=18 * GIB, used=NOW)}
    verdict = choose.keep(held("fresh", 2), 0, [good], worths, BOUNDS, NOW)
    assert not verdict.yes
    assert "what is there saved more" in verdict.reason
    later = NOW + 2 * DAY
    assert choose.keep(held("fresh", 2, later), 0, [good], {}, BOUNDS, later).yes, "the other saved nothing since"


def test_what_is_of_no_use_goes_and_what_saved_most_for_its_size_stays() -> None:
    old, used = held("old", 1, NOW - 40 * DAY), held("used", 4, NOW - 40 * DAY)
    idle, fresh = held("idle", 4, NOW - 9 * DAY), held("fresh", 4)
    worths = {used.disk: Worth(uses=3, saved=12 * GIB, used=NOW - DAY)}
    gone, left = choose.evict([old, used, idle, fresh], worths, BOUNDS, NOW)
    assert {each.base.name: each.reason.split(",")[0] for each in gone} == {
        "old": "of no use for 40 days",
        "idle": "more than 10 GiB are kept",
    }
    assert {each.name for each in left} == {"used", "fresh"}


bases = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 60), st.integers(0, 20), st.integers(0, 60), st.integers(0, 1)),
    max_size=8,
)


@given(bases, st.integers(1, 12))
def test_nothing_in_use_goes_nothing_is_lost_and_the_bounds_hold(
    shapes: list[tuple[int, int, int, int, int]], most: int
) -> None:
    bounds = CacheBounds(most_gib=most, days=30)
    made = [held(str(number), gib, NOW - days * DAY) for number, (gib, days, *_) in enumerate(shapes)]
    worths = {
        each.disk: Worth(uses=1, saved=saved * GIB, used=NOW - used * DAY, open=opened)
        for each, (_, _, saved, used, opened) in zip(made, shapes, strict=True)
    }
    gone, left = choose.evict(made, worths, bounds, NOW)
    assert {each.base.disk for each in gone} | {each.disk for each in left} == {each.disk for each in made}
    assert len(gone) + len(left) == len(made)
    assert all(not worths[each.base.disk].open and each.reason for each in gone)
    free = [each for each in left if not worths[each.disk].open]
    assert not free or sum(each.held for each in left) <= most * GIB
    assert choose.evict(left, worths, bounds, NOW)[0] == (), "twice is once"
