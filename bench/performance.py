"""python -m bench.performance: docs/performance.md, written from bench/results and bench/performance_notes.md.

Nobody writes a figure on that page: a test makes it again from the results and compares. What a person has to say
stands in the notes, a Markdown file of sections `## ID`: the ids of bars (bench/bars.py), and those in GENERAL.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench import datapath_results, regret_results, results
from bench.bars import BARS, Bar, Measured, Value, values
from bench.datapath_report import tables
from bench.report import TITLES, aligned, table

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results"
NOTES = ROOT / "bench" / "performance_notes.md"
PAGE = ROOT / "docs" / "performance.md"
PICTURES = "../bench/results"

MARKS = {
    "ambitious": "**ambitious**",
    "must": "must",
    "MISSED": "**MISSED**",
    "too few": "too few repeats",
    "not measured": "not measured",
}
GENERAL = ("intro", "lost", "migrate", "datapath", "regret")


class NotesError(ValueError):
    """The notes speak of something that is not on the page."""


def read(folder: Path = RESULTS) -> Measured:
    """All measured rows. Raises ResultsError."""
    return Measured(
        results.load(folder / "migrate.json"),
        datapath_results.load(folder / "datapath.json"),
        regret_results.load(folder / "regret.json"),
    )


def notes(text: str) -> dict[str, str]:
    """The sections of the notes. Raises NotesError for one that nothing on the page is called."""
    known = {*GENERAL, *(bar.id for bar in BARS)}
    sections: dict[str, str] = {}
    for part in ("\n" + text).split("\n## ")[1:]:
        name, _, body = part.partition("\n")
        if name.strip() not in known:
            raise NotesError(
                f"bench/performance_notes.md: no {name.strip()!r} on the page; use {', '.join(sorted(known))}"
            )
        sections[name.strip()] = body.strip()
    return sections


def _measured(bar: Bar, value: Value | None) -> str:
    if value is None:
        return "-"
    sign = "" if not value.bound else (">" if bar.better == "more" else "<")
    return sign + bar.text(value.number) + (f" ({value.detail})" if value.detail else "")


def _limit(bar: Bar, limit: float | None) -> str:
    if limit is None:
        return "-"
    return ("≥ " if bar.better == "more" else "≤ ") + bar.text(limit)


def bars_table(found: Mapping[str, Value | None]) -> str:
    """The table of bars: promised, aimed for, measured."""
    rows = [("what", "must", "ambitious", "measured", "repeats", "reached", "measured by")]
    for bar in BARS:
        value = found[bar.id]
        repeats = "-" if value is None else str(value.repeats)
        rows.append(
            (
                bar.what, _limit(bar, bar.must), _limit(bar, bar.ambitious), _measured(bar, value), repeats,
                MARKS[bar.mark(value)], f"`{bar.command}`, {value.run}" if value and value.run else f"`{bar.command}`",
            )
        )  # fmt: skip
    return aligned(rows)


def _summary(found: Mapping[str, Value | None]) -> str:
    marks = {bar.id: bar.mark(found[bar.id]) for bar in BARS}
    musts = [bar for bar in BARS if bar.must is not None]
    aims = [bar for bar in BARS if bar.ambitious is not None]
    reached = sum(marks[bar.id] in ("must", "ambitious") for bar in musts)
    won = sum(marks[bar.id] == "ambitious" for bar in aims)
    open_ = sum(mark in ("not measured", "too few") for mark in marks.values())
    text = f"{reached} of {len(musts)} promised values are reached, {won} of {len(aims)} of those aimed for"
    return text + (f"; {open_} of {len(BARS)} are not measured yet, or by too few repeats." if open_ else ".")


def page(measured: Measured, sections: Mapping[str, str]) -> str:
    """The whole page."""
    found = values(measured)
    parts = [
        "# What the data path reaches",
        "This page is written by `python -m bench.performance` from the rows in [bench/results](../bench/results) and "
        "the notes in [bench/performance_notes.md](../bench/performance_notes.md); a test compares. How each figure is "
        "measured stands in [bench.md](bench.md).",
        sections.get("intro", ""),
        "## The bars",
        _summary(found),
        bars_table(found),
        "A ratio is taken between medians of rows of one run; `>`: the peer was given up, and counts with the seconds "
        "it had until then. Where a bar speaks of the worst of several, the brackets say which it was.",
        *_said(found, sections),
    ]
    if sections.get("lost"):
        parts += ["## What is lost", sections["lost"]]
    parts += [*_moves(measured, sections), *_passes(measured, sections), *_regrets(measured, sections)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _said(found: Mapping[str, Value | None], sections: Mapping[str, str]) -> list[str]:
    """What the notes say of single bars, in the order of the table."""
    said = [
        f"* **{bar.what}** ({_measured(bar, found[bar.id])}): {' '.join(sections[bar.id].split())}"
        for bar in BARS
        if bar.id in sections
    ]
    return ["\n".join(said)] if said else []


def _moves(measured: Measured, sections: Mapping[str, str]) -> list[str]:
    if not measured.rows:
        return []
    lines = results.lines(measured.rows)
    return [
        "## Moves of a guest",
        _origin("make bench", [(row.run, row.machine) for row in measured.rows]),
        table(lines),
        f"![time and bytes by method]({PICTURES}/migrate.png)",
        _pages_table(measured),
        sections.get("migrate", ""),
    ]


def _pages_table(measured: Measured) -> str:
    """What became of the pages, where the data path said so: of the last repeat of each cell."""
    kinds = ("zero", "same", "copied", "known", "base", "delta", "fresh")
    newest = {row.cell: row for row in measured.rows if row.pages and row.pages.records}
    rows: list[tuple[str, ...]] = [("link Mbit/s", "workload", "method", "page records", *kinds)]
    for cell, row in newest.items():
        assert row.pages
        shares = [f"{100 * getattr(row.pages, kind) / row.pages.records:.1f} %" for kind in kinds]
        head = (str(cell.link_mbit), cell.workload, TITLES.get(cell.method, cell.method))
        rows.append((*head, f"{row.pages.records}", *shares))
    return "What became of the guest's pages:\n\n" + aligned(rows) if len(rows) > 1 else ""


def _passes(measured: Measured, sections: Mapping[str, str]) -> list[str]:
    if not measured.passes:
        return []
    parts = [
        "## The data path by itself",
        _origin("make bench-datapath", [(each.run, each.machine) for each in measured.passes]),
    ]
    for title, text in tables(measured.figures()):
        name, _, what = title.partition(": ")
        parts += [f"`{name}`: {what}.", text]
    return [*parts, f"![RAM per CPU second, bytes, tail]({PICTURES}/datapath.png)", sections.get("datapath", "")]


def _regrets(measured: Measured, sections: Mapping[str, str]) -> list[str]:
    if not measured.regrets:
        return []
    rows: list[tuple[str, ...]] = [
        ("link Mbit/s", "processors", "against the best single codec, worst corpus", "against the best for each batch")
    ]
    for link, cores in sorted({(each.link_mbit, each.cores) for each in measured.regrets}):
        here = [each for each in measured.regrets if (each.link_mbit, each.cores) == (link, cores)]
        fixed, batch = max(each.against_fixed for each in here), max(each.against_each for each in here)
        rows.append((str(link), str(cores), f"{100 * fixed:+.1f} %", f"{100 * batch:+.1f} %"))
    return [
        "## The codec selector",
        "`python -m bench.regret`: the real selector, with measured sizes and CPU seconds, over simulated links.",
        aligned(rows),
        f"![regret by link speed]({PICTURES}/regret.png)",
        sections.get("regret", ""),
    ]


def _origin(command: str, runs: Sequence[tuple[str, str]]) -> str:
    """By which command, when, and on what."""
    by_machine: dict[str, list[str]] = {}
    for run, machine in sorted(set(runs)):
        by_machine.setdefault(machine, []).append(run)
    where = "; ".join(
        f"{', '.join(dates)} on {machine or 'a machine that is not named'}" for machine, dates in by_machine.items()
    )
    return f"`{command}`, {where}."


def main(words: Sequence[str] | None = None) -> int:
    """0: written; 1: `--check` found that the page is not what the results say; 2: results or notes cannot be read."""
    made = argparse.ArgumentParser(prog="python -m bench.performance", description=__doc__)
    made.add_argument("--check", action="store_true", help="write nothing: say whether the page is up to date")
    made.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER", help="default: bench/results")
    made.add_argument("--page", type=Path, default=PAGE, metavar="FILE", help="default: docs/performance.md")
    options = made.parse_args(words)
    try:
        text = page(read(options.results), notes(NOTES.read_text()))
    except (results.ResultsError, NotesError) as error:
        print(error, file=sys.stderr)
        return 2
    if options.check:
        current = options.page.exists() and options.page.read_text() == text
        if not current:
            print(f"{options.page} is not what the results say: run `python -m bench.performance`", file=sys.stderr)
        return int(not current)
    options.page.write_text(text)
    print(f"{options.page}: written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
