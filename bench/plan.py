"""What is measured: links x workloads x methods, and the grammar that picks cells from that matrix.

A selection is ``LINK[:WORKLOAD[:METHOD]]``; each part is a comma-separated list, and a part that is left out
or is ``*`` means all of them. ``100:idle`` is every method on the idle guest at 100 Mbit/s.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

LINKS = (100, 1000)
"""Mbit/s the link is shaped to."""

RETURN = "return"
WORKLOADS = {"idle": 0, "d5": 5, "d20": 20, RETURN: 5}
"""MiB/s the guest dirties: 64 bytes in a random page of its work area. `return` is the guest of `d5` on its way back:
it has gone to the other host by NovaCron and lived there for a while."""

NATIVE = ("plain", "xbzrle", "multifd-zstd")
"""QEMU's own."""

IMAGE = "novacron-image"
CUT = "novacron-cut"
METHODS = (*NATIVE, "novacron", IMAGE, CUT)
"""In table order. Ratios are taken against the first."""

BASELINE = METHODS[0]

ONLY_WITH = {IMAGE: (100, "idle"), CUT: (100, "idle")}
"""Methods that answer one question, asked in one group."""

RETURN_LINK = 100
RETURN_METHODS = ("plain", "multifd-zstd", "novacron")

GRAMMAR = "LINK[:WORKLOAD[:METHOD]], each a comma-separated list or *"


class SelectionError(ValueError):
    """A selection names something that is not measured. The message names the part and what it may be."""


class Cell(NamedTuple):
    """One row of the table."""

    link_mbit: int
    workload: str
    method: str

    def __str__(self) -> str:
        return f"{self.link_mbit}:{self.workload}:{self.method}"


class Group(NamedTuple):
    """The cells that are compared with each other: same link, same workload."""

    link_mbit: int
    workload: str
    methods: tuple[str, ...]


def _asked(cell: Cell) -> bool:
    """Whether a cell is measured at all."""
    if cell.workload == RETURN:
        return cell.link_mbit == RETURN_LINK and cell.method in RETURN_METHODS
    return ONLY_WITH.get(cell.method, cell[:2]) == cell[:2]


MATRIX = tuple(
    cell
    for cell in (Cell(link, workload, method) for link in LINKS for workload in WORKLOADS for method in METHODS)
    if _asked(cell)
)


def _choose(part: str, text: str, allowed: Iterable[str], selection: str) -> set[str]:
    """The members of `allowed` that one part of a selection names."""
    known = tuple(allowed)
    if text == "*":
        return set(known)
    names = {name.strip() for name in text.split(",")}
    for name in sorted(names):
        if name not in known:
            raise SelectionError(
                f"--only {selection!r}: no {part} {name!r}; use {', '.join(known)} or *. Grammar: {GRAMMAR}"
            )
    return names


def select(selections: Sequence[str]) -> tuple[Cell, ...]:
    """Cells that any of the selections names, in the order of the matrix; none given means all.

    Raises SelectionError.
    """
    if not selections:
        return MATRIX
    wanted: set[Cell] = set()
    for selection in selections:
        parts = selection.split(":")
        if len(parts) > 3:
            raise SelectionError(f"--only {selection!r} has {len(parts)} parts, at most 3. Grammar: {GRAMMAR}")
        link, workload, method = (part.strip() for part in parts + ["*"] * (3 - len(parts)))
        links = _choose("link", link, map(str, LINKS), selection)
        workloads = _choose("workload", workload, WORKLOADS, selection)
        methods = _choose("method", method, METHODS, selection)
        named = {
            cell
            for cell in MATRIX
            if str(cell.link_mbit) in links and cell.workload in workloads and cell.method in methods
        }
        if not named:
            raise SelectionError(
                f"--only {selection!r}: not measured together. {RETURN} is, at {RETURN_LINK}, with "
                f"{', '.join(RETURN_METHODS)}; {' and '.join(ONLY_WITH)} with 100:idle"
            )
        wanted |= named
    return tuple(cell for cell in MATRIX if cell in wanted)


def groups(cells: Sequence[Cell]) -> tuple[Group, ...]:
    """The cells, gathered into groups that are measured together."""
    seen = dict.fromkeys((cell.link_mbit, cell.workload) for cell in cells)
    return tuple(
        Group(link, workload, tuple(c.method for c in cells if (c.link_mbit, c.workload) == (link, workload)))
        for link, workload in seen
    )


def schedule(cells: Sequence[Cell], repeat: int) -> tuple[tuple[Cell, int], ...]:
    """Cells and their repeat number, in the order of measuring.

    Repeats of a group are interleaved, and each starts with the next method, so that a change of the load of
    the machine in the meantime falls on all methods alike: two methods repeated twice are measured a b, b a.
    """
    return tuple(
        (Cell(group.link_mbit, group.workload, group.methods[(i + turn) % len(group.methods)]), turn)
        for group in groups(cells)
        for turn in range(repeat)
        for i in range(len(group.methods))
    )
