"""Another round, or cut over? The pure decider of a warm move."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from workflows.cloud.rounds import START_SECONDS, Round, decide, expected

MIB = 1 << 20
FIRST = Round(bytes=10_000 * MIB, seconds=1000, since=0)


def changes(*sizes: int) -> list[Round]:
    """Each a tenth of a second for a MiB, and as long since the one before as that one took."""
    found, took = [FIRST], FIRST.seconds
    for size in sizes:
        found.append(Round(bytes=size * MIB, seconds=size / 10, since=took))
        took = size / 10
    return found


def test_the_first_copy_is_followed_by_a_round_however_short_it_was() -> None:
    assert decide([Round(bytes=1, seconds=0.1, since=0)], goal=3600, most=10, held=0).action == "round"


def test_rounds_go_on_until_the_last_one_fits_and_no_longer() -> None:
    rounds = changes(1000)
    assert decide(rounds, goal=START_SECONDS + 5, most=10, held=0).action == "round"
    step = decide(changes(1000, 50), goal=START_SECONDS + 5, most=10, held=0)
    assert (step.action, step.within) == ("cut over", True)
    assert "within reach" in step.reason


def test_comparing_large_disks_counts() -> None:
    rounds = changes(10)
    assert expected(rounds, held=200 << 30) > expected(rounds, held=0) + 1000
    assert decide(rounds, goal=60, most=10, held=200 << 30).action == "round"


def test_the_most_rounds_end_it_and_say_that_the_goal_is_out_of_reach() -> None:
    step = decide(changes(1000, 500, 200), goal=START_SECONDS, most=3, held=0)
    assert (step.action, step.within) == ("cut over", False)
    assert "3 rounds are the most" in step.reason


def test_a_guest_that_writes_as_fast_as_it_is_sent_is_not_chased_for_ever() -> None:
    step = decide(changes(1000, 1000, 990, 1000), goal=START_SECONDS, most=50, held=0)
    assert (step.action, step.within) == ("cut over", False)
    assert "gained nothing" in step.reason


some = st.builds(
    Round,
    bytes=st.integers(0, 2**44),
    seconds=st.floats(0, 10**6),
    since=st.floats(0, 10**6),
)


@given(st.lists(some, min_size=1, max_size=12), st.floats(1, 86400), st.integers(1, 50), st.integers(0, 2**46))
@example([Round(1, 1.0, 0.0), Round(1, 0.0, 2.3e-313)], 1.0, 1, 0)  # moments too near to tell a rate
def test_it_always_decides_and_ends(rounds: list[Round], goal: float, most: int, held: int) -> None:
    step = decide(rounds, goal, most, held)
    assert step.reason
    assert step.expected >= START_SECONDS
    if len(rounds) > most:
        assert step.action == "cut over"
    if step.within:
        assert step.expected <= goal
