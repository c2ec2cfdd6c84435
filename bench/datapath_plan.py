"""What `make bench-datapath` measures: four groups, each with its own question, input, link and subjects.

A selection is ``GROUP[:SUBJECT]``; the second part is a comma-separated list, ``*`` or left out for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from bench.corpora import NAMES
from bench.plan import SelectionError

RECORDED, RANDOM = "recorded", "random"
CORPORA = tuple(name for name in NAMES if name != RANDOM)
"""Memory of real programs."""

LOOPBACK = 0
"""Instead of a link's Mbit/s: nothing but the CPU bounds it."""

INTERNET = 100
"""Mbit/s of the link of internet mode."""

GRAMMAR = "GROUP[:SUBJECT], the second a comma-separated list or *"


@dataclass(frozen=True)
class Asked:
    """One group. All its cells are measured together, their repeats interleaved."""

    what: str
    inputs: tuple[str, ...]
    links: tuple[int, ...]
    subjects: tuple[str, ...]
    at_most: int | None = None
    """Bytes of the input that are used; None: all."""
    pace: int | None = None
    """Bytes a second at which the stream is fed; None: as fast as it is taken."""


GROUPS = {
    "cpu": Asked(
        "guest memory per CPU second of both ends, a recorded QEMU stream over loopback",
        (RECORDED,),
        (LOOPBACK,),
        ("relay", "zstd-pipe", "raw", "raw-tls", "lz4-tls", "zstd-tls", "auto-tls", "lz4-tls-python"),
    ),
    "tail": Asked(
        "from the last byte written to the last byte out, fed at 60 MB/s, the stream not ended",
        (RECORDED,),
        (LOOPBACK,),
        ("relay", "lz4-tls", "auto-tls"),
        at_most=96 << 20,
        pace=60_000_000,
    ),
    "wire": Asked("bytes on a link of 100 Mbit/s, for memory of five programs", CORPORA, (INTERNET,), ("auto-tls",)),
    "random": Asked(
        "what trying costs where nothing can be gained", (RANDOM,), (INTERNET, 1000), ("raw-tls", "auto-tls")
    ),
}


class Cell(NamedTuple):
    """One row of the tables."""

    group: str
    input: str
    link_mbit: int
    subject: str

    def __str__(self) -> str:
        link = f"{self.link_mbit} Mbit/s" if self.link_mbit else "loopback"
        return f"{self.group}, {self.input}, {link}, {self.subject}"


MATRIX = tuple(
    Cell(name, what, link, subject)
    for name, group in GROUPS.items()
    for what in group.inputs
    for link in group.links
    for subject in group.subjects
)


def select(selections: Sequence[str]) -> tuple[Cell, ...]:
    """Cells that any of the selections names, in the order of the matrix; none given means all.

    Raises SelectionError.
    """
    wanted: set[Cell] = set()
    for selection in selections or GROUPS:
        group, _, names = (part.strip() for part in selection.partition(":"))
        if group not in GROUPS:
            raise SelectionError(
                f"--only {selection!r}: no group {group!r}; use {', '.join(GROUPS)}. Grammar: {GRAMMAR}"
            )
        subjects = GROUPS[group].subjects
        picked = subjects if names in ("", "*") else tuple(name.strip() for name in names.split(","))
        for name in picked:
            if name not in subjects:
                raise SelectionError(
                    f"--only {selection!r}: no subject {name!r} in {group}; use {', '.join(subjects)} or *"
                )
        wanted |= {cell for cell in MATRIX if cell.group == group and cell.subject in picked}
    return tuple(cell for cell in MATRIX if cell in wanted)


def schedule(cells: Sequence[Cell], repeat: int) -> tuple[tuple[Cell, int], ...]:
    """Cells and their repeat number, in the order of measuring.

    Cells that are compared (same group, input and link) take turns, and each turn begins with the next of them.
    """
    compared: dict[tuple[str, str, int], list[Cell]] = {}
    for cell in cells:
        compared.setdefault(cell[:3], []).append(cell)
    return tuple(
        (members[(i + turn) % len(members)], turn)
        for members in compared.values()
        for turn in range(repeat)
        for i in range(len(members))
    )
