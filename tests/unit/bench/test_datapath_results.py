"""Passes, how runs are merged, and the tables and plot made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.datapath import main
from bench.datapath_plan import MATRIX
from bench.datapath_report import plot, tables
from bench.datapath_results import Pass, figures, load, merge, save
from bench.results import ResultsError


def sample(**changes: Any) -> Pass:
    fields: dict[str, Any] = {
        "run": "2026-11-23T05:00:00Z",
        "group": "cpu",
        "input": "recorded",
        "link_mbit": 0,
        "subject": "lz4-tls",
        "seconds": 1.0,
        "tail_seconds": 0.002,
        "near_cpu_seconds": 1.0,
        "far_cpu_seconds": 0.5,
        "stream_bytes": 500,
        "ram_bytes": 1500,
        "wire_bytes": 100,
        "frame_bytes": 90,
    }
    return Pass(**{**fields, **changes})


EVERYTHING = [sample(**cell._asdict()) for cell in MATRIX]


def test_a_file_gives_back_what_was_saved_and_none_gives_nothing(tmp_path: Path) -> None:
    assert load(tmp_path / "datapath.json") == ()
    save(tmp_path / "datapath.json", EVERYTHING)
    assert load(tmp_path / "datapath.json") == tuple(EVERYTHING)


def test_a_strange_file_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "datapath.json").write_text('[{"group": "cpu"}]')
    with pytest.raises(ResultsError, match="Move it away"):
        load(tmp_path / "datapath.json")


def test_a_run_replaces_the_cells_it_measured_and_no_other() -> None:
    merged = merge([sample(), sample(subject="relay")], [sample(run="later"), sample(run="later", repeat=1)])
    assert [(each.subject, each.run) for each in merged] == [
        ("relay", "2026-11-23T05:00:00Z"),
        ("lz4-tls", "later"),
        ("lz4-tls", "later"),
    ]


def test_ram_is_counted_per_cpu_second_of_both_ends_and_repeats_become_a_median() -> None:
    lines = figures(sample(near_cpu_seconds=cpu, repeat=i) for i, cpu in enumerate((0.5, 1.0, 2.5)))
    (line,) = lines.values()
    assert (line.repeats, line.ram_per_cpu, line.saved) == (3, 1000, 0.8)
    assert line.spread == pytest.approx((1500 - 500) / 1000)


def test_there_is_a_table_for_each_group_with_a_line_for_each_cell() -> None:
    made = tables(figures(EVERYTHING))
    assert [title.partition(":")[0] for title, _ in made] == ["cpu", "tail", "wire", "random"]
    assert sum(len(text.splitlines()) - 2 for _, text in made) == len(MATRIX)
    assert "1.00x" in made[0][1]


def test_a_peer_of_another_run_is_no_peer() -> None:
    ((_, text),) = tables(figures([sample(), sample(subject="zstd-pipe", run="later")]))
    assert text.splitlines()[2].count("| - ") == 1


def test_a_plot_is_drawn_for_all_and_for_a_part(tmp_path: Path) -> None:
    for passes in (EVERYTHING, EVERYTHING[:1]):
        plot(figures(passes), tmp_path / "datapath.png", "sample")
        assert (tmp_path / "datapath.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_shows_what_there_is_without_measuring(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--plot-only", "--results", str(tmp_path)]) == 1
    assert "run `make bench-datapath` first" in capsys.readouterr().err
    save(tmp_path / "datapath.json", EVERYTHING)
    assert main(["--plot-only", "--results", str(tmp_path)]) == 0
    assert "NovaCron lz4, TLS" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--repeat", "0"], "from 1 to 20"),
        (["--stream", "/nowhere"], "/nowhere: no such file"),
        (["--only", "x"], "no group"),
    ],
)
def test_wrong_arguments_name_the_remedy(words: list[str], what: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert what in capsys.readouterr().err
