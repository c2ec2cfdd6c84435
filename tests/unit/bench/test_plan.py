"""The grammar of --only, and the order in which cells are measured."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.plan import (
    LINKS,
    MATRIX,
    METHODS,
    NATIVE,
    RETURN,
    WORKLOADS,
    Cell,
    SelectionError,
    groups,
    schedule,
    select,
)


def test_no_selection_means_the_whole_matrix() -> None:
    assert select([]) == MATRIX
    everywhere = (*NATIVE, "novacron")
    assert {cell for cell in MATRIX if cell.workload != RETURN and cell.method in everywhere} == {
        Cell(link, workload, method)
        for link in LINKS
        for workload in WORKLOADS
        if workload != RETURN
        for method in everywhere
    }


def test_a_link_and_a_workload_pick_every_method() -> None:
    assert select(["100:idle"]) == tuple(Cell(100, "idle", method) for method in METHODS)


def test_what_answers_one_question_is_measured_in_one_group_only() -> None:
    assert [cell for cell in MATRIX if cell.method not in (*NATIVE, "novacron")] == [
        Cell(100, "idle", "novacron-image"),
        Cell(100, "idle", "novacron-cut"),
    ]
    assert [cell.method for cell in MATRIX if cell.workload == RETURN] == ["plain", "multifd-zstd", "novacron"]


def test_a_selection_of_cells_that_are_not_measured_says_which_are() -> None:
    with pytest.raises(SelectionError, match="return is, at 100"):
        select(["1000:return"])
    with pytest.raises(SelectionError, match="novacron-image and novacron-cut with 100:idle"):
        select(["100:d5:novacron-image"])


def test_methods_are_a_list_and_come_in_table_order() -> None:
    assert select(["100:idle:novacron,plain"]) == (Cell(100, "idle", "plain"), Cell(100, "idle", "novacron"))


def test_a_star_or_a_part_left_out_means_all() -> None:
    assert select(["1000"]) == select(["1000:*:*"]) == tuple(cell for cell in MATRIX if cell.link_mbit == 1000)
    assert len(select(["*:d5:novacron"])) == len(LINKS)


def test_several_selections_add_up_and_no_cell_comes_twice() -> None:
    cells = select(["100:idle", "*:idle:plain", "100:idle"])
    assert len(cells) == len(set(cells)) == len(METHODS) + 1


@pytest.mark.parametrize(
    ("selection", "part", "remedy"),
    [
        ("10:idle", "link '10'", "100, 1000"),
        ("100:busy", "workload 'busy'", "idle, d5, d20, return"),
        ("100:idle:qemu", "method 'qemu'", "plain, xbzrle, multifd-zstd, novacron"),
        ("", "link ''", "100, 1000"),
        ("100:idle:plain,", "method ''", "plain, xbzrle"),
        ("100:idle:plain:2", "4 parts", "LINK[:WORKLOAD[:METHOD]]"),
    ],
)
def test_a_bad_selection_says_which_part_and_what_it_may_be(selection: str, part: str, remedy: str) -> None:
    with pytest.raises(SelectionError) as caught:
        select([selection])
    assert part in str(caught.value)
    assert remedy in str(caught.value)


@given(st.sets(st.sampled_from(MATRIX), min_size=1))
def test_the_name_of_a_cell_selects_that_cell(cells: set[Cell]) -> None:
    assert set(select([str(cell) for cell in cells])) == cells


def test_repeats_of_a_group_are_interleaved_and_start_with_another_method_each_time() -> None:
    order = schedule(select(["100:idle:plain,novacron", "100:d5:plain"]), repeat=2)
    assert [(cell.workload, cell.method, turn) for cell, turn in order] == [
        ("idle", "plain", 0),
        ("idle", "novacron", 0),
        ("idle", "novacron", 1),
        ("idle", "plain", 1),
        ("d5", "plain", 0),
        ("d5", "plain", 1),
    ]


def test_a_group_is_what_shares_link_and_workload() -> None:
    assert [(g.link_mbit, g.workload) for g in groups(MATRIX)] == [
        *((100, workload) for workload in WORKLOADS),
        *((1000, workload) for workload in WORKLOADS if workload != RETURN),
    ]
    assert tuple(Cell(g.link_mbit, g.workload, method) for g in groups(MATRIX) for method in g.methods) == MATRIX
