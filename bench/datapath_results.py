"""Rows of `make bench-datapath`: what carrying a stream once gave, kept as bench/results.py keeps its rows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from bench.datapath_plan import MATRIX, Cell
from bench.results import ResultsError
from models.base import Count, Model, Seconds
from models.datapath import PageCounts


class Pass(Model):
    """A stream, carried once."""

    run: str
    """Start of the run, UTC: passes of one run share it."""
    group: str
    input: str
    link_mbit: Count
    """0: loopback."""
    subject: str
    repeat: Count = 0
    seconds: Annotated[float, Field(gt=0)]
    """From the first byte written to the last byte out."""
    tail_seconds: float
    """From the last byte written to the last byte out. Below zero: the last write returned after its bytes were out."""
    near_cpu_seconds: Seconds
    """User + system of the process that sends, from ready until the sink has seen the end."""
    far_cpu_seconds: Seconds
    setup_cpu_seconds: Seconds = 0
    """What both had used before: imports, handshakes, touching the page memory."""
    stream_bytes: Count
    """What was fed."""
    ram_bytes: Count
    """The guest memory that stands for."""
    wire_bytes: Count = 0
    """Sent by the near interface, headers of a large segment once. 0 on loopback."""
    frame_bytes: Count = 0
    """What the data path handed to TLS: unlike wire_bytes the same each time, if the bytes are."""
    codec: str = ""
    """Of the newest batch."""
    pages: PageCounts | None = None
    load: Annotated[float, Field(ge=0)] = 0
    machine: str = ""

    @property
    def cell(self) -> Cell:
        return Cell(self.group, self.input, self.link_mbit, self.subject)

    @property
    def ram_per_cpu(self) -> float:
        """Bytes of guest memory a CPU second of both ends."""
        return self.ram_bytes / (self.near_cpu_seconds + self.far_cpu_seconds)


_PASSES = TypeAdapter(tuple[Pass, ...])


def load(path: Path) -> tuple[Pass, ...]:
    """Passes of the file; none when it does not exist. Raises ResultsError."""
    if not path.exists():
        return ()
    try:
        return _PASSES.validate_json(path.read_bytes())
    except ValidationError as error:
        raise ResultsError(f"{path} holds no passes of this bench: {error}. Move it away and run again") from error


def save(path: Path, passes: Iterable[Pass]) -> None:
    """Write the file in one step: a reader, or a crash, sees the old passes or the new ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".json.new")
    fresh.write_text(json.dumps([each.model_dump() for each in passes], indent=1) + "\n")
    fresh.replace(path)


def merge(old: Iterable[Pass], new: Sequence[Pass]) -> tuple[Pass, ...]:
    """Old passes, except those of cells measured anew, with the new ones, in table order."""
    measured = {each.cell for each in new}
    order = {cell: i for i, cell in enumerate(MATRIX)}
    kept = [each for each in old if each.cell not in measured] + list(new)
    return tuple(sorted(kept, key=lambda each: (order.get(each.cell, len(order)), each.repeat)))


class Figures(Model):
    """One line of a table: medians over the repeats of a cell."""

    run: str
    group: str
    input: str
    link_mbit: Count
    subject: str
    repeats: Count
    seconds: Seconds
    tail_seconds: float
    near_cpu_seconds: Seconds
    far_cpu_seconds: Seconds
    ram_per_cpu: float
    spread: float
    """(most - least) / median of ram_per_cpu."""
    stream_bytes: Count
    ram_bytes: Count
    wire_bytes: float
    frame_bytes: float
    load: float

    @property
    def cell(self) -> Cell:
        return Cell(self.group, self.input, self.link_mbit, self.subject)

    @property
    def saved(self) -> float:
        """Part of the stream's bytes that the link was spared."""
        return 1 - self.wire_bytes / self.stream_bytes


def figures(passes: Iterable[Pass]) -> dict[Cell, Figures]:
    """The medians of each cell, in the order of the passes."""
    cells: dict[Cell, list[Pass]] = {}
    for each in passes:
        cells.setdefault(each.cell, []).append(each)
    return {cell: _figures(members) for cell, members in cells.items()}


def _figures(members: Sequence[Pass]) -> Figures:
    rates = [each.ram_per_cpu for each in members]
    return Figures(
        run=members[0].run,
        **members[0].cell._asdict(),
        repeats=len(members),
        seconds=median(each.seconds for each in members),
        tail_seconds=median(each.tail_seconds for each in members),
        near_cpu_seconds=median(each.near_cpu_seconds for each in members),
        far_cpu_seconds=median(each.far_cpu_seconds for each in members),
        ram_per_cpu=median(rates),
        spread=(max(rates) - min(rates)) / median(rates),
        stream_bytes=members[0].stream_bytes,
        ram_bytes=members[0].ram_bytes,
        wire_bytes=median(each.wire_bytes for each in members),
        frame_bytes=median(each.frame_bytes for each in members),
        load=median(each.load for each in members),
    )
