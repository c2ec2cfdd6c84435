"""When a move may start, on the clocks of people: midnight, weekends, and the days on which clocks are changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.migration import Window
from models.windows import next_opening

BERLIN = "Europe/Berlin"
NIGHT = Window(since="22:00", until="06:00", zone=BERLIN)
# In 2027 Berlin's clocks go forward on 28 March (02:00 -> 03:00) and back on 31 October (03:00 -> 02:00).


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def opens(at: str, *windows: Window) -> str:
    return next_opening(windows, utc(at)).astimezone(UTC).strftime("%Y-%m-%d %H:%M")


def test_without_windows_it_may_start_at_any_time() -> None:
    assert opens("2027-01-01 12:00") == "2027-01-01 12:00"


def test_inside_a_window_it_may_start_now_and_outside_when_it_opens() -> None:
    assert opens("2027-01-10 21:30", NIGHT) == "2027-01-10 21:30"
    assert opens("2027-01-10 12:00", NIGHT) == "2027-01-10 21:00"


def test_a_window_over_midnight_belongs_to_the_day_it_opens_on() -> None:
    saturday = Window(days=("sat",), since="22:00", until="06:00", zone=BERLIN)
    assert opens("2027-01-10 03:00", saturday) == "2027-01-10 03:00", "Sunday morning, opened on Saturday"
    assert opens("2027-01-10 21:30", saturday) == "2027-01-16 21:00", "Sunday evening"


def test_the_end_of_a_window_is_not_in_it() -> None:
    assert opens("2027-01-10 05:00", NIGHT) == "2027-01-10 21:00"


def test_the_first_of_several_windows_counts() -> None:
    noon = Window(since="12:00", until="13:00", zone=BERLIN)
    assert opens("2027-01-10 08:00", NIGHT, noon) == "2027-01-10 11:00"


def test_equal_times_are_a_whole_day() -> None:
    sunday = Window(days=("sun",), since="00:00", until="00:00")
    assert opens("2027-01-10 23:59", sunday) == "2027-01-10 23:59"
    assert opens("2027-01-11 00:00", sunday) == "2027-01-17 00:00"


def test_summer_time_moves_the_opening_with_the_clock_on_the_wall() -> None:
    assert opens("2027-03-27 12:00", NIGHT) == "2027-03-27 21:00"
    assert opens("2027-03-28 12:00", NIGHT) == "2027-03-28 20:00"


def test_an_opening_that_does_not_exist_is_an_hour_later_on_the_clock() -> None:
    gap = Window(since="02:30", until="05:00", zone=BERLIN)
    assert opens("2027-03-28 00:00", gap) == "2027-03-28 01:30", "03:30 of summer time"


def test_a_window_that_lies_in_the_missing_hour_opens_the_day_after() -> None:
    gap = Window(since="02:10", until="03:00", zone=BERLIN)
    assert opens("2027-03-28 00:00", gap) == "2027-03-29 00:10"


def test_an_hour_that_comes_twice_is_open_both_times() -> None:
    twice = Window(since="02:00", until="02:30", zone=BERLIN)
    assert opens("2027-10-30 23:00", twice) == "2027-10-31 00:00", "the first 02:00"
    assert opens("2027-10-31 01:29", twice) == "2027-10-31 01:29", "before the second 02:30"
    assert opens("2027-10-31 01:30", twice) == "2027-11-01 01:00"


def test_an_unknown_zone_is_named() -> None:
    with pytest.raises(ValueError, match=r"windows\.zone: no time zone 'Europe/Berln'"):
        opens("2027-01-01 12:00", Window(since="01:00", until="02:00", zone="Europe/Berln"))


@given(
    st.datetimes(datetime(2026, 1, 1), datetime(2028, 1, 1)),
    st.sampled_from(["UTC", BERLIN, "America/New_York", "Australia/Lord_Howe", "Pacific/Apia"]),
    st.integers(0, 23),
    st.integers(0, 23),
    st.sets(st.sampled_from(["mon", "tue", "wed", "thu", "fri", "sat", "sun"]), min_size=1),
)
def test_an_opening_is_never_in_the_past_and_is_open(
    at: datetime, zone: str, since: int, until: int, days: set[str]
) -> None:
    window = Window.model_validate(
        {"days": tuple(sorted(days)), "since": f"{since:02}:00", "until": f"{until:02}:00", "zone": zone}
    )
    asked = at.replace(tzinfo=UTC)
    found = next_opening((window,), asked)
    assert asked <= found <= asked + timedelta(days=9)
    assert next_opening((window,), found) == found, "it is open then"
