"""docs/scale.md says what bench/results/scale.json and the notes say, and a broken fact cannot hide in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.results import ResultsError
from bench.scale import RESULTS, thinned
from bench.scale_report import NOTES, PAGE, PICTURE, page, picture
from bench.scale_results import Fact, History, ScaleRun, Spread, Stage, load, save, spread


def run(hosts: int = 20, faults: float = 0.0, lost: int = 0, moves: int = 10) -> ScaleRun:
    return ScaleRun(
        run="2026-01-01T00:00:00Z",
        command="python -m bench.scale",
        commit="abc",
        machine="2 x CPU",
        versions={"temporal": "1"},
        load=0.5,
        hosts=hosts,
        vms=10 * hosts,
        evacuated=2,
        move_seconds=4,
        faults=faults,
        control_workers=1,
        stages=(Stage(name="evacuation", seconds=20, workflows=22, moves=moves, starts=spread([0.1, 0.3])),),
        histories=(
            History(type="novacron.MigrateVm", events=spread([90, 100]), bytes=spread([2048]), seconds=Spread()),
        ),
        peak_mib={"server": 200},
        database_mib=7,
        facts=(Fact(what="VMs that run nowhere", expected=0, found=lost),),
        drain=((0.0, 20), (10.0, 5), (20.0, 0)),
    )


def test_the_page_is_what_the_results_and_the_notes_say() -> None:
    runs = load(RESULTS)
    assert PAGE.read_text() == page(runs, NOTES.read_text()), "run `python -m bench.scale --page-only`"
    assert PICTURE.read_text() == picture(runs)


def test_every_kept_run_has_all_its_facts() -> None:
    runs = load(RESULTS)
    assert runs
    assert all(each.holds for each in runs)


def test_a_fact_that_does_not_hold_stands_out() -> None:
    text = page([run(lost=1)], "")
    assert "**BROKEN**" in text
    assert "**1**" in text
    assert "BROKEN" not in page([run()], "")


def test_rates_are_of_their_stage() -> None:
    assert "| 1.10 " in page([run()], "")
    assert "| 0.50 " in page([run()], "")


def test_a_run_replaces_the_one_of_its_size_only(tmp_path: Path) -> None:
    file = tmp_path / "scale.json"
    save(file, [run(20), run(100), run(20, faults=0.1)])
    save(file, [run(20, moves=15)])
    kept = load(file)
    assert [(each.hosts, each.faults) for each in kept] == [(20, 0.0), (20, 0.1), (100, 0.0)]
    assert kept[0].stages[0].moves == 15


def test_results_that_cannot_be_read_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "scale.json").write_text("{}")
    with pytest.raises(ResultsError, match="Move it away"):
        load(tmp_path / "scale.json")


def test_percentiles_are_values_that_were_measured() -> None:
    assert spread(range(1, 101)) == Spread(count=100, median=51, p95=96, most=100)
    assert spread([]) == Spread()


def test_a_picture_has_a_line_for_each_run() -> None:
    assert picture([run(), run(100)]).count("<polyline") == 2
    assert picture([]).count("<polyline") == 0


def test_thinned_points_keep_the_changes_and_both_ends() -> None:
    points = [(0.0, 9), (1.0, 9), (2.0, 8), (3.0, 8), (4.0, 0), (5.0, 0)]
    assert thinned(points) == ((0.0, 9), (2.0, 8), (4.0, 0), (5.0, 0))
    assert len(thinned([(float(number), number) for number in range(1000)], most=100)) <= 101
    assert thinned([]) == ()
