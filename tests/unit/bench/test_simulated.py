"""The simulated site tells the truth about itself, above all when something is wrong with it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.simulated.faults import Faults
from bench.simulated.site import Facts, Site

WELL = Facts(vms=40, lost=0, doubled=0, leftovers=0, jobs=0, paths=0)


@pytest.fixture
def site() -> Site:
    return Site("sim", hosts=4, vms=40)


def test_vms_are_dealt_out_evenly(site: Site) -> None:
    assert [len(host.copies) for host in site.hosts.values()] == [10, 10, 10, 10]
    assert site.facts() == WELL


def test_a_move_leaves_one_copy(site: Site) -> None:
    site.begin("vm-00000", "h0000", "h0001")
    assert site.runs_on("vm-00000") == ["h0000"]
    assert site.facts() == replace(WELL, leftovers=1, jobs=1)
    site.switch("vm-00000", "h0000", "h0001")
    assert site.runs_on("vm-00000") == ["h0001"]
    assert site.facts() == WELL
    assert site.left_on(["h0000"]) == 9


def test_a_move_that_breaks_leaves_the_vm_where_it_was(site: Site) -> None:
    site.begin("vm-00000", "h0000", "h0001")
    site.stay("vm-00000", "h0000", "h0001")
    assert site.runs_on("vm-00000") == ["h0000"]
    assert site.facts() == WELL


def test_a_paused_copy_that_is_left_is_found(site: Site) -> None:
    site.begin("vm-00000", "h0000", "h0001")
    site.stay("vm-00000", "h0000", "h0001", leftover=True)
    assert site.facts() == replace(WELL, leftovers=1)


def test_a_lost_vm_is_found(site: Site) -> None:
    del site.hosts["h0000"].copies["vm-00000"]
    assert site.facts() == replace(WELL, vms=39, lost=1)


def test_a_vm_that_runs_twice_is_found(site: Site) -> None:
    site.hosts["h0001"].copies["vm-00000"] = site.hosts["h0000"].copies["vm-00000"]
    assert site.facts() == replace(WELL, vms=39, doubled=1)


def test_a_vm_that_ran_twice_for_a_moment_is_found_for_good(site: Site) -> None:
    site.hosts["h0002"].copies["vm-00000"] = site.hosts["h0000"].copies["vm-00000"]
    site.begin("vm-00000", "h0000", "h0001")
    site.switch("vm-00000", "h0000", "h0001")
    del site.hosts["h0002"].copies["vm-00000"]
    assert site.facts() == replace(WELL, doubled=1)
    assert site.ran_twice == ["vm-00000 was started on h0001 and ran on h0002"]


def test_faults_come_in_the_shares_asked_for() -> None:
    faults = Faults(seed=7, refused=0.1, path=0.1, broken=0.2, leftover=0.1)
    found = Counter(faults.of(f"vm-{number:05}", "h0001") for number in range(2000))
    assert 900 < found["none"] < 1100
    assert 300 < found["broken"] < 500
    assert all(100 < found[fault] < 300 for fault in ("refused", "path", "leftover"))


def test_the_same_seed_has_the_same_faults_and_times() -> None:
    one, other, third = Faults(seed=7, broken=0.5), Faults(seed=7, broken=0.5), Faults(seed=8, broken=0.5)
    moves = [(f"vm-{number:05}", f"h{number % 7:04}") for number in range(200)]
    assert [one.of(*move) for move in moves] == [other.of(*move) for move in moves]
    assert [one.of(*move) for move in moves] != [third.of(*move) for move in moves]
    assert [one.seconds(*move, 4) for move in moves] == [other.seconds(*move, 4) for move in moves]


@given(st.integers(), st.text(max_size=8), st.floats(0.1, 60))
def test_times_stay_near_the_median(seed: int, vm: str, median: float) -> None:
    assert 0.5 * median <= Faults(seed=seed).seconds(vm, "h0000", median) <= 4 * median
