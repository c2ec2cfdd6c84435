"""What the data path has to reach: each bar as data, and how its value is read from measured rows.

A value is a ratio, or a difference, of medians of one run; there is none when the peer was not measured in that run.
`must` is what the project promises, `ambitious` what it aims for; one of them may be missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Literal

from bench.datapath_plan import CORPORA, INTERNET, LOOPBACK, RANDOM, RECORDED
from bench.datapath_plan import Cell as PathCell
from bench.datapath_results import Figures, Pass, figures
from bench.plan import NATIVE, RETURN, Cell
from bench.results import Line, Row, lines

ENOUGH = 3
"""Repeats below which a median says little."""


@dataclass(frozen=True)
class Regret:
    """A row of `bench/regret.py`: one corpus through the real codec selector, on a simulated link."""

    corpus: str
    link_mbit: int
    cores: int
    seconds: float
    against_fixed: float
    """Part that the selector took longer than the best single codec."""
    against_each: float
    """Part that it took longer than the best codec for each batch: a lower bound that nothing can reach."""


@dataclass(frozen=True)
class Measured:
    """All there is in bench/results."""

    rows: Sequence[Row] = ()
    passes: Sequence[Pass] = ()
    regrets: Sequence[Regret] = ()

    def lines(self) -> dict[Cell, Line]:
        return {Cell(line.link_mbit, line.workload, line.method): line for line in lines(self.rows)}

    def figures(self) -> dict[PathCell, Figures]:
        return figures(self.passes)


@dataclass(frozen=True)
class Value:
    """What was measured for a bar."""

    number: float
    repeats: int
    """Of the cell that has the fewest; for the selector, rows."""
    run: str
    detail: str = ""
    """Which of several cells it is, when the bar is about the worst of them."""
    bound: bool = False
    """The peer was given up: the real value is on the better side of this one."""


@dataclass(frozen=True)
class Bar:
    id: str
    what: str
    must: float | None
    ambitious: float | None
    unit: Literal["x", "%", "ms", "windows", ""]
    better: Literal["more", "less"]
    command: str
    value: Callable[[Measured], Value | None]

    def reaches(self, number: float, limit: float) -> bool:
        return number >= limit if self.better == "more" else number <= limit

    def mark(self, value: Value | None) -> str:
        """ambitious, must, MISSED, too few (repeats to say that it is reached), or not measured."""
        if value is None:
            return "not measured"
        mark = self._reached(value)
        return mark if mark == "MISSED" or value.repeats >= ENOUGH else "too few"

    def _reached(self, value: Value) -> str:
        if self.ambitious is not None and self.reaches(value.number, self.ambitious):
            return "ambitious"
        if self.must is not None:
            return "must" if self.reaches(value.number, self.must) else "MISSED"
        return "MISSED"

    def text(self, number: float) -> str:
        """A number as people write it, in the bar's unit."""
        match self.unit:
            case "x":
                return f"{number:.2f}x"
            case "%":
                return f"{number:.1f} %"
            case "ms":
                return f"{number:+.1f} ms"
            case "windows":
                return f"{number:.2f} windows"
            case _:
                return f"{number:.0f}"


def _pair(measured: Measured, cell: Cell, peer: str) -> tuple[Line, Line, str] | None:
    """The lines of a cell and of its peer in the same group and run; None unless both were measured in one run."""
    runs = [{row.run for row in measured.rows if row.cell == each} for each in (cell, cell._replace(method=peer))]
    found = measured.lines()
    if len(runs[0]) != 1 or runs[0] != runs[1]:
        return None
    return found[cell], found[cell._replace(method=peer)], next(iter(runs[0]))


def _faster(link: int, workload: str, method: str, peer: str) -> Callable[[Measured], Value | None]:
    """How many times as fast as the peer. A move that was given up is infinitely slow."""

    def value(measured: Measured) -> Value | None:
        pair = _pair(measured, Cell(link, workload, method), peer)
        if pair is None:
            return None
        ours, theirs, run = pair
        repeats = min(ours.repeats, theirs.repeats)
        if ours.converged < ours.repeats:
            return Value(0, repeats, run, "given up")
        return Value(theirs.seconds / ours.seconds, repeats, run, bound=theirs.converged < theirs.repeats)

    return value


def _return_bytes(measured: Measured) -> Value | None:
    pair = _pair(measured, Cell(INTERNET, RETURN, "novacron"), "plain")
    if pair is None:
        return None
    ours, theirs, run = pair
    return Value(100 * ours.link_bytes / theirs.link_bytes, min(ours.repeats, theirs.repeats), run)


def _converges(measured: Measured) -> Value | None:
    cell = Cell(INTERNET, "d20", "novacron")
    line = measured.lines().get(cell)
    if line is None:
        return None
    run = max(row.run for row in measured.rows if row.cell == cell)
    return Value(100 * line.converged / line.repeats, line.repeats, run)


def _silence(measured: Measured) -> Value | None:
    """In the group where NovaCron stands worst: its longest silence over that of QEMU's best method that arrives."""
    found = measured.lines()
    worst: Value | None = None
    for cell, line in found.items():
        if cell.method != "novacron":
            continue
        pairs = [pair for peer in NATIVE if (pair := _pair(measured, cell, peer))]
        arrived = [(theirs, run) for _, theirs, run in pairs if theirs.converged == theirs.repeats]
        if not arrived:
            continue
        best, run = min(arrived, key=lambda pair: pair[0].gap_seconds)
        over = 1000 * (line.gap_seconds - best.gap_seconds)
        if worst is None or over > worst.number:
            where = f"{cell.link_mbit} Mbit/s, {cell.workload}, against {best.method}"
            worst = Value(over, min(line.repeats, best.repeats), run, where)
    return worst


def _share(measured: Measured) -> Value | None:
    """Where the link is the limit: the first visit at 100 Mbit/s."""
    cell = Cell(INTERNET, "idle", "novacron")
    line = measured.lines().get(cell)
    if line is None or line.link_share is None:
        return None
    run = max(row.run for row in measured.rows if row.cell == cell)
    return Value(100 * line.link_share, line.repeats, run)


def _resent(measured: Measured) -> Value | None:
    """The worst of all moves over a cut link."""
    rows = [row for row in measured.rows if row.method == "novacron-cut" and row.window_bytes]
    if not rows:
        return None
    worst = max(rows, key=lambda row: row.resent_bytes / row.window_bytes)
    detail = f"{worst.resent_bytes / 1e6:.2f} of {worst.window_bytes / 1e6:.2f} MB"
    return Value(worst.resent_bytes / worst.window_bytes, len(rows), worst.run, detail)


def _path_pair(measured: Measured, cell: PathCell, peer: str) -> tuple[Figures, Figures] | None:
    found = measured.figures()
    ours, theirs = found.get(cell), found.get(cell._replace(subject=peer))
    if ours is None or theirs is None:
        return None
    runs = {each.run for each in measured.passes if each.cell in (ours.cell, theirs.cell)}
    return (ours, theirs) if len(runs) == 1 else None


def _cpu(subject: str) -> Callable[[Measured], Value | None]:
    """Guest memory per CPU second, over that of the zstd pipe."""

    def value(measured: Measured) -> Value | None:
        pair = _path_pair(measured, PathCell("cpu", RECORDED, LOOPBACK, subject), "zstd-pipe")
        if pair is None:
            return None
        ours, theirs = pair
        return Value(ours.ram_per_cpu / theirs.ram_per_cpu, min(ours.repeats, theirs.repeats), ours.run)

    return value


def _tail(measured: Measured) -> Value | None:
    pair = _path_pair(measured, PathCell("tail", RECORDED, LOOPBACK, "auto-tls"), "relay")
    if pair is None:
        return None
    ours, theirs = pair
    return Value(1000 * (ours.tail_seconds - theirs.tail_seconds), min(ours.repeats, theirs.repeats), ours.run)


def _wire(measured: Measured) -> list[Figures]:
    """One line for each corpus; none unless all were measured."""
    found = measured.figures()
    cells = [PathCell("wire", name, INTERNET, "auto-tls") for name in CORPORA]
    return [found[cell] for cell in cells] if all(cell in found for cell in cells) else []


def _wire_each(measured: Measured) -> Value | None:
    if not (all_ := _wire(measured)):
        return None
    worst = min(all_, key=lambda line: line.saved)
    return Value(100 * worst.saved, min(line.repeats for line in all_), worst.run, worst.input)


def _wire_mean(measured: Measured) -> Value | None:
    if not (all_ := _wire(measured)):
        return None
    run = max(line.run for line in all_)
    return Value(100 * mean(line.saved for line in all_), min(line.repeats for line in all_), run)


def _random(what: Callable[[Figures], float]) -> Callable[[Measured], Value | None]:
    """Per cent more than without trying, on the link where that is most."""

    def value(measured: Measured) -> Value | None:
        worst: Value | None = None
        for link in (INTERNET, 1000):
            pair = _path_pair(measured, PathCell("random", RANDOM, link, "auto-tls"), "raw-tls")
            if pair is None:
                return None
            ours, theirs = pair
            extra = 100 * (what(ours) / what(theirs) - 1)
            if worst is None or extra > worst.number:
                worst = Value(extra, min(ours.repeats, theirs.repeats), ours.run, f"{link} Mbit/s")
        return worst

    return value


def _regret(measured: Measured) -> Value | None:
    """Against the best single codec, known beforehand: mean over corpora and processors, at the worst link speed."""
    links = {
        each.link_mbit: [x for x in measured.regrets if x.link_mbit == each.link_mbit] for each in measured.regrets
    }
    means = {link: mean(each.against_fixed for each in here) for link, here in links.items()}
    if not means:
        return None
    worst = max(means, key=means.__getitem__)
    return Value(100 * means[worst], len(links[worst]), "", f"{worst} Mbit/s")


MIGRATE = 'make bench ARGS="--only {} --repeat 3"'
PATH = 'make bench-datapath ARGS="--only {}"'
IDLE, D20, FAST = MIGRATE.format("100:idle"), MIGRATE.format("100:d20"), MIGRATE.format("1000:idle")
BACK, ALL = MIGRATE.format("100:return"), 'make bench ARGS="--repeat 3"'

BARS = (
    Bar("first-plain", "first visit, 100 Mbit/s, idle: as fast as QEMU plain", 3.3, 4.5, "x", "more", IDLE,
        _faster(100, "idle", "novacron", "plain")),
    Bar("first-multifd", "the same, as fast as QEMU multifd+zstd", 1.15, 1.5, "x", "more", IDLE,
        _faster(100, "idle", "novacron", "multifd-zstd")),
    Bar("return-time", "the guest comes back after minutes of d5: as fast as QEMU plain", 10, 20, "x", "more", BACK,
        _faster(100, RETURN, "novacron", "plain")),
    Bar("return-bytes", "the same, bytes of QEMU plain's", 8, 4, "%", "less", BACK, _return_bytes),
    Bar("image", "first visit, disk image known at the destination: as fast as QEMU plain", 6, 12, "x", "more", IDLE,
        _faster(100, "idle", "novacron-image", "plain")),
    Bar("d20-converges", "100 Mbit/s, d20: moves that converge", 100, 100, "%", "more", D20, _converges),
    Bar("d20-multifd", "the same, as fast as QEMU multifd+zstd", 1.3, 2, "x", "more", D20,
        _faster(100, "d20", "novacron", "multifd-zstd")),
    Bar("gigabit", "1 Gbit/s, idle, with TLS: as fast as QEMU plain without", 1, 1.5, "x", "more", FAST,
        _faster(1000, "idle", "novacron", "plain")),
    Bar("silence", "longest silence of the heartbeat over the best native run's", 150, 0, "ms", "less", ALL, _silence),
    Bar("share", "share of the 100 Mbit/s link used in bulk", 95, 98, "%", "more", IDLE, _share),
    Bar("cpu", "guest RAM per CPU second, lz4 and TLS, over `zstd -1 -T1`", 1.4, 2.2, "x", "more",
        PATH.format("cpu"), _cpu("lz4-tls")),
    Bar("cpu-python", "the same, pure Python", 0.6, 1, "x", "more", PATH.format("cpu"), _cpu("lz4-tls-python")),
    Bar("wire-each", "bytes saved at 100 Mbit/s, the worst of five corpora", 75, None, "%", "more",
        PATH.format("wire"), _wire_each),
    Bar("wire-mean", "bytes saved at 100 Mbit/s, mean of five corpora", None, 82, "%", "more",
        PATH.format("wire"), _wire_mean),
    Bar("random-bytes", "random data: extra bytes", 0.2, 0.1, "%", "less", PATH.format("random"),
        _random(lambda line: line.frame_bytes)),
    Bar("random-time", "random data: extra time", 2, 0, "%", "less", PATH.format("random"),
        _random(lambda line: line.seconds)),
    Bar("regret", "codec selector's regret against the oracle, worst link", 5, 2, "%", "less",
        "python -m bench.regret", _regret),
    Bar("tail", "tail latency over a plain relay, fed at 60 MB/s", 10, 3, "ms", "less", PATH.format("tail"), _tail),
    Bar("resent", "link cut 10 s and healed: bytes sent twice", 1, 0.5, "windows", "less",
        MIGRATE.format("100:idle:novacron-cut"), _resent),
)  # fmt: skip


def values(measured: Measured) -> Mapping[str, Value | None]:
    """The value of each bar, by its id."""
    return {bar.id: bar.value(measured) for bar in BARS}
