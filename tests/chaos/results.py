"""Rows: how each combination ended, the file they are kept in, and the table in docs/reliability.md made of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter

from models.base import Count, Model, Seconds

FILE = Path("bench/results/chaos.json")
PAGE = Path("docs/reliability.md")
BEGIN, END = "<!-- written by `python -m tests.chaos --report` -->", "<!-- end of what is written -->"

GOOD = ("moved", "stayed", "recovered", "stopped", "untouched")


class Row(Model):
    """One combination."""

    what: str
    phase: str
    seed: Count
    """Of the run: with it `--only what:phase` does the same again."""
    outcome: str
    copies: Count
    """Running copies when the workflow had ended, before any recovery."""
    counter_ok: bool
    """No beat missing or twice, memory as last written: throughout, or as long as the guest's own QEMU lived."""
    orphans: Count
    """Domains, processes, sockets, namespaces, folders and leases left behind."""
    seconds: Annotated[Seconds, Field(ge=0)]

    @property
    def good(self) -> bool:
        copies = {"stopped": (0,), "recovered": (0, 1)}.get(self.outcome, (1,))
        return self.outcome in GOOD and self.copies in copies and self.counter_ok and not self.orphans


_ROWS = TypeAdapter(list[Row])


def load(file: Path = FILE) -> list[Row]:
    return _ROWS.validate_json(file.read_bytes()) if file.exists() else []


def save(rows: Iterable[Row], file: Path = FILE) -> None:
    """Rows replace those of the same combination and seed; the others stay."""
    fresh = {(row.what, row.phase, row.seed): row for row in (*load(file), *rows)}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(_ROWS.dump_json(list(fresh.values()), indent=1) + b"\n")


def table(rows: Sequence[Row]) -> str:
    """What breaks, by phase: one line each, with how often each outcome came."""
    seeds = sorted({row.seed for row in rows})
    bad = [row for row in rows if not row.good]
    lines = [
        f"{len({(row.what, row.phase) for row in rows})} combinations, {len(rows)} trials with seeds "
        f"{', '.join(map(str, seeds))}: {_count(rows, 'lost')} lost, {_count(rows, 'doubled')} doubled, "
        f"{sum(row.orphans for row in rows)} orphans, {len(bad)} not as they must be.",
        "",
        "| what breaks | phase | outcome | copies | counter | orphans | seconds |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for what, phase in dict.fromkeys((row.what, row.phase) for row in rows):
        same = [row for row in rows if (row.what, row.phase) == (what, phase)]
        cells = (
            what,
            phase,
            _each(row.outcome if row.good else f"**{row.outcome}**" for row in same),
            _each(str(row.copies) for row in same),
            _each("ok" if row.counter_ok else "**broken**" for row in same),
            _each(str(row.orphans) for row in same),
            _each(f"{row.seconds:.0f}" for row in same),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _count(rows: Iterable[Row], outcome: str) -> int:
    return sum(row.outcome == outcome for row in rows)


def _each(values: Iterable[str]) -> str:
    """One word where all agree."""
    return ", ".join(dict.fromkeys(values))


def page(text: str, rows: Sequence[Row]) -> str:
    """The page with its table as the rows have it."""
    before, found, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (found and end):
        raise ValueError(f"{PAGE} has lost its marks: {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{table(rows)}\n\n{END}{after}"
