"""Progress as people see it: never back, an ETA that means something, honest about what is unknown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clouds.kvm.progress import JobSample, Tracker
from models.datapath import DataPathStatus
from models.migration import Progress

MIB = 1 << 20
PATH = DataPathStatus(
    role="source", migration_id="m1", pid=1, state="connected", raw_out=10, wire_out=5, raw_rate=7.0, lanes_alive=2
)


def test_percent_is_the_memory_that_is_across() -> None:
    progress = Tracker().progress(0, JobSample(total=400 * MIB, remaining=100 * MIB, iteration=1), PATH)
    assert (progress.percent, progress.memory_remaining, progress.iteration) == (75.0, 100 * MIB, 1)
    assert (progress.raw_bytes, progress.wire_bytes, progress.lanes_alive, progress.link) == (10, 5, 2, "connected")


def test_percent_stays_when_a_new_iteration_brings_memory_back() -> None:
    tracker = Tracker()
    tracker.progress(0, JobSample(total=100 * MIB, remaining=10 * MIB, iteration=1), PATH)
    assert tracker.progress(1, JobSample(total=100 * MIB, remaining=60 * MIB, iteration=2), PATH).percent == 90.0


def test_the_last_percent_is_kept_for_the_end_of_the_move() -> None:
    assert Tracker().progress(0, JobSample(total=MIB, remaining=0), PATH).percent == 99.0


def test_the_eta_comes_from_the_rate_of_the_last_seconds() -> None:
    tracker = Tracker()
    for second in range(5):
        progress = tracker.progress(second, JobSample(total=1000 * MIB, remaining=(1000 - 50 * second) * MIB), PATH)
    assert progress.eta == pytest.approx(800 / 50)


def test_what_is_dirtied_meanwhile_has_to_cross_too() -> None:
    tracker = Tracker()
    for second in range(5):
        sample = JobSample(total=1000 * MIB, remaining=(1000 - 50 * second) * MIB, dirty_rate=10.0 * MIB)
        progress = tracker.progress(second, sample, PATH)
    assert progress.eta == pytest.approx(800 / 40, rel=0.01)


def test_there_is_no_eta_for_a_move_that_gains_no_ground() -> None:
    tracker = Tracker()
    for second in range(5):
        sample = JobSample(total=1000 * MIB, remaining=(500 - 10 * second) * MIB, dirty_rate=20.0 * MIB)
        progress = tracker.progress(second, sample, PATH)
    assert progress.eta is None


def test_there_is_no_eta_from_one_sample() -> None:
    assert Tracker().progress(0, JobSample(total=MIB, remaining=MIB), PATH).eta is None


def test_a_silent_link_is_forgotten_after_the_window() -> None:
    tracker = Tracker()
    for second in range(30):
        remaining = 1000 - 50 * max(0, second - 15)
        progress = tracker.progress(second, JobSample(total=1000 * MIB, remaining=remaining * MIB), PATH)
    assert progress.eta == pytest.approx(300 / 50, rel=0.05)


def test_without_a_sample_the_last_figures_stand() -> None:
    tracker = Tracker()
    tracker.progress(0, JobSample(total=100, remaining=40, iteration=2), PATH)
    progress = tracker.progress(3, None, None, note="libvirtd does not answer")
    assert (progress.percent, progress.memory_remaining, progress.elapsed, progress.link) == (60.0, 40, 3, "unknown")


def test_a_second_attempt_goes_on_from_the_first_ones_last_report() -> None:
    tracker = Tracker.resume(Progress(percent=61.5, memory_total=100, memory_remaining=20), started=12)
    progress = tracker.progress(1000, None, PATH)
    assert (progress.percent, progress.memory_total, progress.elapsed) == (61.5, 100, 12)


def test_a_sample_is_read_from_libvirts_own_names() -> None:
    stats = {
        "memory_total": 8,
        "memory_remaining": 4,
        "memory_iteration": 3,
        "memory_dirty_rate": 2,
        "memory_page_size": 4096,
    }
    assert JobSample.of(stats) == JobSample(total=8, remaining=4, iteration=3, dirty_rate=8192.0)
    assert JobSample.of({"type": 2}) == JobSample()
    assert JobSample.of({"disk_total": 7, "disk_remaining": 5}) == JobSample(disk_total=7, disk_remaining=5)


def test_disks_count_with_the_memory_and_go_first() -> None:
    tracker = Tracker(memory=100 * MIB)
    copying = JobSample(disk_total=300 * MIB, disk_remaining=100 * MIB)
    assert tracker.progress(0, copying, PATH).percent == 50.0
    both = JobSample(total=100 * MIB, remaining=40 * MIB, disk_total=300 * MIB)
    progress = tracker.progress(1, both, PATH)
    assert (progress.percent, progress.disk_total, progress.disk_remaining) == (90.0, 300 * MIB, 0)


def test_the_phase_is_told_as_it_was_given() -> None:
    assert Tracker().progress(0, None, PATH, "post-copy", "it follows").phase == "post-copy"


samples = st.builds(
    JobSample,
    total=st.integers(0, 2**45),
    remaining=st.integers(0, 2**45),
    iteration=st.integers(0, 1000),
    dirty_rate=st.floats(0, 1e12),
    disk_total=st.integers(0, 2**45),
    disk_remaining=st.integers(0, 2**45),
)


@given(st.lists(st.tuples(st.floats(0, 30), st.none() | samples)))
def test_whatever_libvirt_reports_percent_never_runs_back_and_the_report_is_valid(
    turns: list[tuple[float, JobSample | None]],
) -> None:
    tracker, now, last = Tracker(), 0.0, 0.0
    for pause, sample in turns:
        now += pause
        progress = tracker.progress(now, sample, PATH)
        assert progress.percent >= last
        last = progress.percent


def test_the_band_of_the_eta_is_as_wide_as_the_rate_varies() -> None:
    def run(amounts: list[int]) -> tuple[float | None, float | None, float | None]:
        tracker, left = Tracker(), 1000 * MIB
        for second, amount in enumerate([0, *amounts]):
            left -= amount * MIB
            progress = tracker.progress(second, JobSample(total=1000 * MIB, remaining=left, iteration=1), PATH)
        return progress.eta_low, progress.eta, progress.eta_high

    steady, uneven, wild = run([50] * 6), run([20, 80, 20, 80, 20, 80]), run([0, 0, 0, 0, 0, 300])
    assert steady == (14, 14, 14)
    assert uneven[0] == pytest.approx(700 / 80, abs=0.1)
    assert uneven[1] == 14
    assert uneven[2] == pytest.approx(700 / 20)
    assert wild[2] is None
