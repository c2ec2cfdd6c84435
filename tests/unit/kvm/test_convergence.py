"""When a move switches to post-copy, and that it gives its reason."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from clouds.kvm.convergence import STALLED_PASSES, Convergence
from clouds.kvm.progress import JobSample

MIB = 1 << 20


def sample(iteration: int, remaining_mib: float) -> JobSample:
    return JobSample(total=4096 * MIB, remaining=int(remaining_mib * MIB), iteration=iteration)


def first_advice(convergence: Convergence, *remaining: float) -> int | None:
    """The pass at which the switch is advised, when each pass starts with so many MiB left."""
    for number, left in enumerate(remaining, 1):
        if convergence.advice(number, sample(number, left)):
            return number
    return None


def test_pre_copy_never_switches() -> None:
    assert first_advice(Convergence("pre-copy", 10), 4096, 900, 900, 900, 900, 900, 900) is None


def test_post_copy_switches_after_one_pass() -> None:
    assert first_advice(Convergence("post-copy", 3600), 4096, 4000) == 2


def test_hybrid_lets_a_guest_converge_that_does() -> None:
    assert first_advice(Convergence("hybrid", 3600), 4096, 900, 400, 200, 100, 50, 25, 12, 6) is None


def test_hybrid_switches_a_guest_whose_passes_gain_no_ground() -> None:
    assert first_advice(Convergence("hybrid", 3600), 4096, 900, 860, 850, 845) == 5


def test_ground_gained_late_counts() -> None:
    assert first_advice(Convergence("hybrid", 3600), 4096, 900, 890, 880, 500, 490, 480) is None


def test_looking_often_at_one_pass_is_no_stall() -> None:
    convergence = Convergence("hybrid", 3600)
    assert not any(convergence.advice(second, sample(2, 900)) for second in range(100))


def test_hybrid_switches_when_half_of_the_time_is_gone() -> None:
    convergence = Convergence("hybrid", 100)
    assert not convergence.advice(50, sample(1, 4000))
    assert "half of the time" in convergence.advice(51, sample(1, 3900))


def test_it_is_too_early_before_memory_is_sent() -> None:
    for convergence in (Convergence("post-copy", 1), Convergence("hybrid", 1)):
        assert not convergence.advice(1000, JobSample(disk_total=5 * MIB, disk_remaining=MIB))


@given(st.lists(st.integers(0, 2**40), max_size=40))
def test_a_stall_needs_its_passes(remaining: list[int]) -> None:
    convergence, seen = Convergence("hybrid", 3600), 0
    for number, left in enumerate(remaining, 1):
        if convergence.advice(0, JobSample(total=2**41, remaining=left, iteration=number)):
            assert seen >= STALLED_PASSES + 1
        seen = number
