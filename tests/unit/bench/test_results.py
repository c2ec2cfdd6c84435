"""Rows, how runs are merged, the table and the plot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.plan import MATRIX, METHODS
from bench.report import HEADER, plot, table
from bench.results import ResultsError, Row, lines, load, merge, save

KEYS = {"link_mbit", "workload", "method", "seconds", "gap_seconds", "wire_bytes", "cpu_seconds", "converged"}


def row(method: str = "plain", **changes: Any) -> Row:
    fields: dict[str, Any] = {
        "run": "2026-11-23T05:00:00Z",
        "link_mbit": 100,
        "workload": "idle",
        "method": method,
        "seconds": 45.0,
        "gap_seconds": 0.5,
        "wire_bytes": 533_000_000,
        "cpu_seconds": 4.0,
        "converged": True,
    }
    return Row(**{**fields, **changes})


def test_the_file_is_a_list_of_rows_with_the_promised_keys(tmp_path: Path) -> None:
    path = tmp_path / "results" / "migrate.json"
    save(path, [row(), row("novacron")])
    raw = json.loads(path.read_text())
    assert isinstance(raw, list)
    assert all(raw[0].keys() >= KEYS for _ in raw)
    assert load(path) == (row(), row("novacron"))


def test_no_file_means_no_rows_and_a_strange_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "migrate.json"
    assert load(path) == ()
    path.write_text('[{"method": "plain"}]')
    with pytest.raises(ResultsError, match="Move it away"):
        load(path)


def test_a_run_replaces_the_cells_it_measured_and_no_other() -> None:
    old = [row(), row("novacron", seconds=20.0), row(workload="d5")]
    new = [row("novacron", seconds=16.0, run="later"), row("novacron", seconds=17.0, run="later", repeat=1)]
    merged = merge(old, new)
    assert [(r.method, r.workload, r.seconds) for r in merged] == [
        ("plain", "idle", 45.0),
        ("novacron", "idle", 16.0),
        ("novacron", "idle", 17.0),
        ("plain", "d5", 45.0),
    ]


def test_repeats_become_one_line_of_medians() -> None:
    (line,) = lines(row(seconds=s, repeat=i) for i, s in enumerate((44.0, 50.0, 45.0)))
    assert (line.repeats, line.converged, line.seconds) == (3, 3, 45.0)
    assert line.spread == pytest.approx(6 / 45)


def test_ratios_are_taken_against_plain_of_the_same_run() -> None:
    plain, ours = lines([row(), row("novacron", seconds=15.0, wire_bytes=180_000_000)])
    assert plain.faster == 1.0
    assert ours.faster == pytest.approx(3.0)
    assert ours.bytes_share == pytest.approx(180 / 533)


def test_there_is_no_ratio_to_plain_of_another_run() -> None:
    (_, ours) = lines([row(), row("novacron", run="later")])
    assert ours.faster is None
    assert ours.bytes_share is None


def test_a_baseline_that_was_given_up_gives_a_lower_bound_only() -> None:
    plain, ours = lines([row(converged=False, seconds=120.0), row("novacron", seconds=30.0)])
    assert plain.faster is None
    assert (ours.faster, ours.bound, ours.bytes_share) == (4.0, True, None)


def test_the_table_is_aligned_and_has_a_line_for_each_cell() -> None:
    text = table(lines([row(), row("xbzrle", converged=False, seconds=120), row("novacron", seconds=15)]))
    rows = text.splitlines()
    assert len(rows) == 2 + 3
    assert len({len(line) for line in rows}) == 1
    assert all(name in rows[0] for name in HEADER)
    assert "NO" in rows[3]
    assert "3.00x" in rows[4]


@pytest.mark.parametrize("cells", [MATRIX, MATRIX[:1], MATRIX[: len(METHODS)]])
def test_a_plot_is_drawn_for_the_full_matrix_and_for_parts_of_it(cells: tuple[Any, ...], tmp_path: Path) -> None:
    rows = [row(link_mbit=c.link_mbit, workload=c.workload, method=c.method) for c in cells]
    rows[0] = rows[0].model_copy(update={"converged": False})
    path = tmp_path / "results" / "migrate.png"
    plot(lines(rows), path, "sample")
    assert path.read_bytes().startswith(b"\x89PNG")
