"""Bars: what is promised, what is aimed for, and how values are read from rows."""

from __future__ import annotations

from typing import Any

import pytest

from bench.bars import BARS, Bar, Measured, Regret, Value, values
from bench.datapath_plan import CORPORA
from bench.datapath_results import Pass
from bench.results import Row

BY_ID = {bar.id: bar for bar in BARS}


def row(method: str, seconds: float, link: int = 100, workload: str = "idle", **changes: Any) -> Row:
    fields: dict[str, Any] = {
        "run": "first",
        "link_mbit": link,
        "workload": workload,
        "method": method,
        "seconds": seconds,
        "gap_seconds": 0.3,
        "wire_bytes": 1000,
        "cpu_seconds": 1,
        "converged": True,
    }
    return Row(**{**fields, **changes})


def carried(subject: str, group: str = "cpu", what: str = "recorded", link: int = 0, **changes: Any) -> Pass:
    fields: dict[str, Any] = {
        "run": "first",
        "group": group,
        "input": what,
        "link_mbit": link,
        "subject": subject,
        "seconds": 1,
        "tail_seconds": 0.001,
        "near_cpu_seconds": 1,
        "far_cpu_seconds": 1,
        "stream_bytes": 1000,
        "ram_bytes": 2000,
        "wire_bytes": 100,
        "frame_bytes": 100,
    }
    return Pass(**{**fields, **changes})


def value(bar: str, measured: Measured) -> Value:
    found = values(measured)[bar]
    assert found is not None
    return found


def test_ids_are_unique_and_every_bar_asks_for_something() -> None:
    assert len(BY_ID) == len(BARS)
    for bar in BARS:
        limits = [limit for limit in (bar.must, bar.ambitious) if limit is not None]
        assert limits
        assert bar.reaches(limits[-1], limits[0]), "what is aimed for is no less than what is promised"


def test_nothing_measured_gives_no_values_and_says_so() -> None:
    assert set(values(Measured()).values()) == {None}
    assert BARS[0].mark(None) == "not measured"


@pytest.mark.parametrize(
    ("number", "mark"), [(5.0, "ambitious"), (4.5, "ambitious"), (4.0, "must"), (3.3, "must"), (3.2, "MISSED")]
)
def test_a_value_is_marked_by_what_it_reaches(number: float, mark: str) -> None:
    assert BY_ID["first-plain"].mark(Value(number, 3, "")) == mark


def test_nothing_is_reached_by_too_few_repeats_but_it_can_be_missed() -> None:
    assert BY_ID["first-plain"].mark(Value(5.0, 2, "")) == "too few"
    assert BY_ID["first-plain"].mark(Value(3.0, 2, "")) == "MISSED"


@pytest.mark.parametrize(("number", "mark"), [(-10, "ambitious"), (0, "ambitious"), (150, "must"), (151, "MISSED")])
def test_where_less_is_better_the_limits_are_upper_ones(number: float, mark: str) -> None:
    assert BY_ID["silence"].mark(Value(number, 3, "")) == mark


def test_ratios_are_taken_within_one_run_only() -> None:
    rows = [row("plain", 40), row("multifd-zstd", 15, run="later"), row("novacron", 10)]
    found = values(Measured(rows))
    assert value("first-plain", Measured(rows)).number == 4
    assert found["first-multifd"] is None


def test_medians_are_compared_and_the_fewest_repeats_are_told() -> None:
    rows = [row("plain", 40), *(row("novacron", seconds, repeat=i) for i, seconds in enumerate((8, 10, 80)))]
    found = value("first-plain", Measured(rows))
    assert (found.number, found.repeats) == (4, 1)


def test_a_move_that_was_given_up_is_no_speed_and_a_peer_that_was_is_a_bound() -> None:
    given_up = [row("multifd-zstd", 120, workload="d20", converged=False), row("novacron", 30, workload="d20")]
    assert value("d20-multifd", Measured(given_up)).bound
    assert value("d20-converges", Measured(given_up)).number == 100
    ours = [row("multifd-zstd", 30, workload="d20"), row("novacron", 120, workload="d20", converged=False)]
    assert value("d20-multifd", Measured(ours)).number == 0
    assert value("d20-converges", Measured(ours)).number == 0


def test_silence_is_judged_in_the_worst_group_against_the_best_native_method_that_arrived() -> None:
    rows = [
        row("plain", 40, gap_seconds=0.3),
        row("novacron", 10, gap_seconds=0.31),
        row("plain", 120, workload="d20", gap_seconds=0.1, converged=False),
        row("xbzrle", 70, workload="d20", gap_seconds=0.4),
        row("multifd-zstd", 30, workload="d20", gap_seconds=0.9),
        row("novacron", 30, workload="d20", gap_seconds=0.6),
    ]
    found = value("silence", Measured(rows))
    assert found.number == pytest.approx(200)
    assert found.detail == "100 Mbit/s, d20, against xbzrle"


def test_the_returning_guest_is_judged_by_time_and_bytes() -> None:
    rows = [
        row("plain", 68, workload="return", wire_back_bytes=20),
        row("novacron", 4, workload="return", wire_bytes=40, wire_back_bytes=1, setup_bytes=10),
    ]
    assert value("return-time", Measured(rows)).number == 17
    assert value("return-bytes", Measured(rows)).number == pytest.approx(5), "all bytes, both ways, and of setting up"


def test_what_was_sent_twice_is_told_in_windows_and_the_worst_counts() -> None:
    rows = [
        row("novacron-cut", 20, resent_bytes=resent, window_bytes=10**6, repeat=i)
        for i, resent in enumerate((0, 700_000, 300_000))
    ]
    found = value("resent", Measured(rows))
    assert (found.number, found.repeats, found.detail) == (0.7, 3, "0.70 of 1.00 MB")


def test_cpu_is_judged_against_the_pipe_and_the_tail_against_the_relay() -> None:
    passes = [
        carried("zstd-pipe"),
        carried("lz4-tls", near_cpu_seconds=0.5, far_cpu_seconds=0.5),
        carried("relay", "tail"),
        carried("auto-tls", "tail", tail_seconds=0.004),
    ]
    assert value("cpu", Measured(passes=passes)).number == 2
    assert value("tail", Measured(passes=passes)).number == pytest.approx(3)
    assert values(Measured(passes=passes))["cpu-python"] is None


def test_bytes_are_judged_once_all_corpora_are_measured() -> None:
    passes = [carried("auto-tls", "wire", name, 100, wire_bytes=100 + 50 * i) for i, name in enumerate(CORPORA)]
    assert values(Measured(passes=passes[1:]))["wire-each"] is None
    worst, mean = value("wire-each", Measured(passes=passes)), value("wire-mean", Measured(passes=passes))
    assert worst.number == pytest.approx(70)
    assert worst.detail == CORPORA[-1]
    assert mean.number == pytest.approx(80)
    assert BY_ID["wire-mean"].mark(mean) == "MISSED"


def test_random_data_is_judged_on_the_link_where_trying_costs_most() -> None:
    passes = [
        carried("raw-tls", "random", "random", 100),
        carried("auto-tls", "random", "random", 100, seconds=1.01),
        carried("raw-tls", "random", "random", 1000, frame_bytes=10000),
        carried("auto-tls", "random", "random", 1000, frame_bytes=10005, seconds=1.03),
    ]
    time, size = value("random-time", Measured(passes=passes)), value("random-bytes", Measured(passes=passes))
    assert time.number == pytest.approx(3)
    assert size.number == pytest.approx(0.05)
    assert time.detail == size.detail == "1000 Mbit/s"


def test_the_selector_is_judged_at_its_worst_link_speed_by_the_mean_there() -> None:
    regrets = [
        Regret("files", 100, 1, 2.0, 0.05, 0.01),
        Regret("redis", 1000, 1, 2.0, -0.1, 0.04),
        Regret("files", 100, 4, 2.0, 0.01, 0.04),
    ]
    found = value("regret", Measured(regrets=regrets))
    assert found.number == pytest.approx(3)
    assert found.detail == "100 Mbit/s"


@pytest.mark.parametrize(
    ("bar", "text"), [("cpu", "1.40x"), ("wire-each", "75.0 %"), ("tail", "+10.0 ms"), ("resent", "1.00 windows")]
)
def test_numbers_are_written_in_their_unit(bar: str, text: str) -> None:
    found: Bar = BY_ID[bar]
    assert found.must is not None
    assert found.text(found.must) == text
