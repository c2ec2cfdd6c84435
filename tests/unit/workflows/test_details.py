"""How a move looks to people."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.migration import Phase, Progress
from workflows import details

PHASES: tuple[Phase, ...] = get_args(Phase)

counts = st.integers(min_value=0, max_value=2**63 - 1)
rates = st.floats(min_value=0, max_value=1e13)
progresses = st.builds(
    Progress,
    phase=st.sampled_from(PHASES),
    percent=st.floats(min_value=0, max_value=100),
    eta=st.none() | st.floats(min_value=0, max_value=86400 * 30),
    elapsed=st.floats(min_value=0, max_value=86400 * 30),
    memory_total=counts,
    memory_remaining=counts,
    iteration=counts,
    raw_rate=rates,
    wire_rate=rates,
    wire_bytes=counts,
    raw_bytes=counts,
    lanes_alive=counts,
    redials=counts,
    link=st.text(max_size=32),
    note=st.text(max_size=200),
)


@given(st.text(max_size=80), progresses, st.lists(st.text(max_size=100), max_size=5))
def test_the_table_keeps_its_shape_whatever_the_texts_hold(title: str, progress: Progress, notes: list[str]) -> None:
    text = details.markdown(title, progress, notes)
    lines = text.splitlines()
    assert len(lines) == len(text.split("\n")) - 1, "no exotic line break slips through"
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == len(details.rows(progress)) + 2
    for row in table:
        assert row.replace("\\\\", "").replace("\\|", "").count("|") == 3


@given(st.floats(min_value=0, max_value=100))
def test_the_bar_has_one_length_and_grows(percent: float) -> None:
    assert len(details.bar(percent)) == len(details.bar(0))
    assert details.bar(percent).count("█") <= details.bar(100).count("█")


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (512 << 20, "512.0 MiB"), (3 << 50, "3.0 PiB")],
)
def test_sizes_are_binary(count: int, text: str) -> None:
    assert details.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0.0 s"), (9.94, "9.9 s"), (42, "42 s"), (93.4, "1 min 33 s"), (7260, "2 h 01 min")]
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert details.duration(seconds) == text


def test_a_ratio_needs_both_sides() -> None:
    assert details.ratio(300, 100) == "3.0x"
    assert details.ratio(0, 100) == details.ratio(100, 0) == "-"


def test_disks_are_shown_where_they_are_copied() -> None:
    assert ("disks left", "1.0 KiB of 2.0 KiB") in details.rows(Progress(disk_total=2048, disk_remaining=1024))


def test_figures_not_known_yet_are_left_out() -> None:
    assert [name for name, _ in details.rows(Progress())] == ["phase", "elapsed"]
