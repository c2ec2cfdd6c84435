"""What the bench of the data path measures, in which order, and how one picks from it."""

from __future__ import annotations

import pytest

from bench.datapath_plan import CORPORA, GROUPS, MATRIX, schedule, select
from bench.plan import SelectionError
from bench.subjects import SUBJECTS


def test_every_subject_of_the_plan_is_known_how_to_run() -> None:
    assert {cell.subject for cell in MATRIX} == set(SUBJECTS)


def test_there_are_five_corpora_and_the_control_is_none_of_them() -> None:
    assert len(CORPORA) == 5
    assert "random" not in CORPORA


def test_no_selection_means_everything() -> None:
    assert select([]) == MATRIX


def test_a_group_and_subjects_pick_cells_in_the_order_of_the_plan() -> None:
    assert [cell.subject for cell in select(["cpu:lz4-tls,relay"])] == ["relay", "lz4-tls"]
    assert select(["wire", "wire:*"]) == tuple(cell for cell in MATRIX if cell.group == "wire")


@pytest.mark.parametrize(
    ("selection", "what"),
    [
        ("speed", "no group 'speed'; use cpu, tail"),
        ("tail:raw", "no subject 'raw' in tail; use relay"),
        ("", "no group"),
    ],
)
def test_a_bad_selection_says_what_there_is(selection: str, what: str) -> None:
    with pytest.raises(SelectionError, match=what):
        select([selection])


def test_what_is_compared_takes_turns_and_each_turn_begins_with_another() -> None:
    order = [(cell.subject, cell.link_mbit, turn) for cell, turn in schedule(select(["random"]), 2)]
    assert order[:4] == [("raw-tls", 100, 0), ("auto-tls", 100, 0), ("auto-tls", 100, 1), ("raw-tls", 100, 1)]
    assert {link for _, link, _ in order[4:]} == {1000}


def test_only_the_tail_is_paced_and_cut_short() -> None:
    assert [name for name, group in GROUPS.items() if group.pace or group.at_most] == ["tail"]
