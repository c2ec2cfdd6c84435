"""Rows: what one measured move gave, how rows are kept in a file, and how repeats become one line.

The file is a plain JSON list of rows. A run replaces the rows of exactly the cells it measured and leaves all
other rows; every row names its run, and ratios are only taken between rows of one run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from bench.plan import BASELINE, MATRIX, Cell
from models.base import Count, Model, Seconds
from models.datapath import PageCounts


class Row(Model):
    """One measured move."""

    run: str = ""
    """Start of the run, UTC: rows of one run share it."""
    link_mbit: Count
    workload: str
    method: str
    repeat: Count = 0
    seconds: Annotated[float, Field(gt=0)]
    """From the migrate command until the source says completed and the guest runs at the destination."""
    gap_seconds: Seconds
    """Longest silence of the guest's heartbeat (every 0.1 s), on whichever host it beats."""
    wire_bytes: Count
    """Sent by the source's interface."""
    wire_back_bytes: Count = 0
    """Sent by the destination's interface: acknowledgements."""
    setup_bytes: Count = 0
    """What both interfaces had sent for the data path before the clock started: handshakes, what the stores have."""
    cpu_seconds: Seconds
    """User + system of both QEMUs and both data path ends during those seconds, with the guest's vCPUs."""
    guest_cpu_seconds: Seconds = 0
    """The part of cpu_seconds that vCPU threads used."""
    path_cpu_seconds: Seconds = 0
    """The part of cpu_seconds that the two data path processes used."""
    converged: bool
    """False: given up, the guest stayed at the source."""
    downtime_ms: Count | None = None
    """The final pause as QEMU at the source counts it."""
    rounds: Count = 0
    """Passes over dirty memory (QEMU's dirty-sync-count)."""
    stream_bytes: Count = 0
    """What QEMU says it sent (for multifd: before compression)."""
    setup_seconds: Seconds = 0
    """Start of the data path processes until connected; before, and not part of, `seconds`."""
    guest_ram_bytes: Count = 0
    accel: str = ""
    load: Annotated[float, Field(ge=0)] = 0
    """Load average (1 min) just before."""
    link_share: Annotated[float, Field(ge=0)] | None = None
    """Part of the shaped rate that was used while the middle four fifths of the bytes left. Counted as the shaper
    counts: with the Ethernet, IP and TCP headers of every packet."""
    raw_bytes: Count = 0
    """What QEMU wrote into the data path."""
    frame_bytes: Count = 0
    """What the data path handed to TLS."""
    resent_bytes: Count = 0
    """The part of frame_bytes that was sent again after a lost lane."""
    window_bytes: Count = 0
    """The data path's window: just before the link was cut, else at the end."""
    redials: Count = 0
    pages: PageCounts | None = None
    """What became of the guest's pages."""
    away_seconds: Seconds = 0
    """`return`: how long the guest lived at the other host."""
    digest: str = ""
    """BLAKE3 of the memory stream, equal at both ends of the data path."""
    machine: str = ""

    @property
    def link_bytes(self) -> int:
        """All that went over the link for this move, both ways."""
        return self.wire_bytes + self.wire_back_bytes + self.setup_bytes

    @property
    def cell(self) -> Cell:
        return Cell(self.link_mbit, self.workload, self.method)


class ResultsError(RuntimeError):
    """The results file cannot be read."""


_ROWS = TypeAdapter(tuple[Row, ...])


def load(path: Path) -> tuple[Row, ...]:
    """Rows of the file; none when it does not exist. Raises ResultsError."""
    if not path.exists():
        return ()
    try:
        return _ROWS.validate_json(path.read_bytes())
    except ValidationError as error:
        raise ResultsError(f"{path} holds no rows of this bench: {error}. Move it away and run again") from error


def save(path: Path, rows: Iterable[Row]) -> None:
    """Write the file in one step: a reader, or a crash, sees the old rows or the new ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".json.new")
    fresh.write_text(json.dumps([row.model_dump() for row in rows], indent=1) + "\n")
    fresh.replace(path)


def merge(old: Iterable[Row], new: Sequence[Row]) -> tuple[Row, ...]:
    """Old rows, except those of cells measured anew, with the new ones, in table order."""
    measured = {row.cell for row in new}
    rows = [row for row in old if row.cell not in measured] + list(new)
    order = {cell: i for i, cell in enumerate(MATRIX)}
    return tuple(sorted(rows, key=lambda row: (order.get(row.cell, len(order)), row.repeat)))


class Line(Model):
    """One line of the table: medians over the repeats of a cell."""

    link_mbit: Count
    workload: str
    method: str
    repeats: Count
    converged: Count
    """How many of the repeats did."""
    seconds: Seconds
    gap_seconds: Seconds
    link_bytes: float
    """All of them, as in Row."""
    cpu_seconds: Seconds
    guest_cpu_seconds: Seconds
    downtime_ms: float | None
    rounds: float
    load: float
    spread: float = 0
    """(slowest - fastest) / median of seconds."""
    faster: float | None = None
    """Times as fast as the baseline of the same run; None without one, or when this method did not converge.

    A baseline that was given up counts with the seconds it had: then this is a lower bound (`bound`).
    """
    bound: bool = False
    link_share: float | None = None
    """As in Row; None when too little was sent to tell."""
    bytes_share: float | None = None
    """Bytes over those of the baseline of the same run; None as for `faster`, and when `bound`."""


def _line(rows: Sequence[Row]) -> Line:
    seconds = [row.seconds for row in rows]
    shares = [row.link_share for row in rows if row.link_share is not None]
    downtimes = [row.downtime_ms for row in rows if row.downtime_ms is not None]
    return Line(
        **rows[0].cell._asdict(),
        repeats=len(rows),
        converged=sum(row.converged for row in rows),
        seconds=median(seconds),
        gap_seconds=median(row.gap_seconds for row in rows),
        link_bytes=median(row.link_bytes for row in rows),
        cpu_seconds=median(row.cpu_seconds for row in rows),
        guest_cpu_seconds=median(row.guest_cpu_seconds for row in rows),
        downtime_ms=median(downtimes) if downtimes else None,
        rounds=median(row.rounds for row in rows),
        load=median(row.load for row in rows),
        link_share=median(shares) if shares else None,
        spread=(max(seconds) - min(seconds)) / median(seconds),
    )


def lines(rows: Iterable[Row]) -> tuple[Line, ...]:
    """One line per cell, with its ratios to the baseline where both were measured in the same run."""
    cells: dict[Cell, list[Row]] = {}
    for row in rows:
        cells.setdefault(row.cell, []).append(row)
    made = []
    for cell, members in cells.items():
        line = _line(members)
        base = cells.get(cell._replace(method=BASELINE), [])
        same_run = {row.run for row in base} == {row.run for row in members}
        if same_run and line.converged == line.repeats:
            peer = _line(base)
            bound = peer.converged < peer.repeats
            line = line.model_copy(
                update={
                    "faster": peer.seconds / line.seconds,
                    "bound": bound,
                    "bytes_share": None if bound else line.link_bytes / peer.link_bytes,
                }
            )
        made.append(line)
    return tuple(made)
