"""docs/performance.md is what the results and the notes say, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.bars import BARS, Measured
from bench.performance import NOTES, PAGE, NotesError, main, notes, page, read
from bench.results import save
from tests.unit.bench.test_bars import carried, row

ROWS = [row("plain", 40), row("multifd-zstd", 15), row("novacron", 10)]


def test_the_page_is_what_the_results_and_the_notes_say() -> None:
    assert PAGE.read_text() == page(read(), notes(NOTES.read_text())), "run `python -m bench.performance`"


def test_every_bar_stands_on_the_page_measured_or_not() -> None:
    text = page(Measured(ROWS), {})
    assert all(bar.what in text for bar in BARS)
    assert "4.00x" in text


def test_few_repeats_are_called_few() -> None:
    assert "too few repeats |" in page(Measured(ROWS), {})
    assert "too few repeats |" not in page(
        Measured([row(r.method, r.seconds, repeat=i) for r in ROWS for i in range(3)]), {}
    )


def test_a_page_without_results_still_stands() -> None:
    text = page(Measured(), {})
    assert "0 of" in text
    assert "Moves of a guest" not in text


def test_passes_have_their_tables_and_their_origin() -> None:
    text = page(Measured(passes=[carried("zstd-pipe", machine="2 x CPU"), carried("lz4-tls", machine="2 x CPU")]), {})
    assert "`make bench-datapath`, first on 2 x CPU." in text
    assert "zstd -1 -T1" in text


def test_the_selector_has_its_table(tmp_path: Path) -> None:
    fields = {"corpus": "files", "link_mbit": 100, "cores": 1, "seconds": 2.0, "fixed": "zstd", "used": {"zstd": 3}}
    rows = [{**fields, "against_fixed": -0.01, "against_each": 0.03}]
    (tmp_path / "regret.json").write_text(json.dumps(rows))
    assert "| -1.0 % " in page(read(tmp_path), {})


def test_notes_stand_with_their_bar() -> None:
    found = notes("Before.\n\n## cpu\nBecause\nof this.\n\n## lost\nA thing.\n")
    assert found == {"cpu": "Because\nof this.", "lost": "A thing."}
    text = page(Measured(), found)
    assert "Because of this." in text
    assert text.index("## What is lost") < text.index("A thing.")


def test_notes_about_nothing_are_refused() -> None:
    with pytest.raises(NotesError, match="no 'speed' on the page; use cpu"):
        notes("## speed\n")


def test_a_figure_changed_by_hand_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "migrate.json", ROWS)
    words = ["--results", str(tmp_path), "--page", str(tmp_path / "performance.md")]
    assert main([*words, "--check"]) == 1
    assert "run `python -m bench.performance`" in capsys.readouterr().err
    assert main(words) == 0
    assert main([*words, "--check"]) == 0
    text = (tmp_path / "performance.md").read_text()
    (tmp_path / "performance.md").write_text(text.replace("4.00x", "5.00x"))
    assert main([*words, "--check"]) == 1


def test_results_that_cannot_be_read_are_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "datapath.json").write_text("{}")
    assert main(["--results", str(tmp_path), "--page", str(tmp_path / "page.md")]) == 2
    assert "Move it away" in capsys.readouterr().err
