"""make bench: how fast, and with how many bytes, NovaCron moves a guest, against QEMU's own methods in the same run.

Runs on ground of its own (two hosts in namespaces, a shaped link), which is gone afterwards however this ends.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.status import Status

from bench.carriers import METHODS, MoveFailed
from bench.ground import Ground, ground
from bench.guest import Guest, put_away
from bench.guest import save as save_guest
from bench.heartbeat import beats
from bench.machine import in_words, machine_text, now_text, warm
from bench.move import PROOF_BEATS, measure, room
from bench.plan import GRAMMAR, LINKS, RETURN, RETURN_LINK, WORKLOADS, Cell, SelectionError, schedule, select
from bench.plan import METHODS as METHOD_NAMES
from bench.report import plot, table
from bench.results import ResultsError, Row, lines, load, merge, save
from dwcp.errors import DwcpError
from workers.lab.errors import LabError

RESULTS = Path(__file__).parent / "results"
OVERHEAD = 9
"""Seconds of a row besides its move: two QEMUs, restoring, settling, proof."""

GOING = Cell(RETURN_LINK, "d5", "novacron")
"""How the returning guest has left."""

AWAY = 300
"""Seconds it lives at the other host."""

BOOT = 14
"""Seconds to boot a workload's guest and save it."""


def estimate(cell: Cell, known: Sequence[Row]) -> float:
    """Seconds a row will take: as earlier rows of its cell, else guessed from the bytes of a plain move."""
    seen = [row.seconds for row in known if row.cell == cell]
    guess = 540 * 8 * (1 + WORKLOADS[cell.workload] / 10) / cell.link_mbit
    return OVERHEAD + (median(seen) if seen else min(guess, 120))


class Bench:
    """One run: snapshots made so far, rows so far, and what is said about it."""

    def __init__(self, site: Ground, folder: Path, console: Console, away: float) -> None:
        self.site = site
        self.away = away
        self.file = folder / "migrate.json"
        self.known = load(self.file)
        self.rows: list[Row] = []
        self.failures: list[str] = []
        self.console = console
        self.started = now_text()
        self.machine = machine_text()
        self._snapshots: dict[str, Path] = {}
        self._no_return = ""
        """Why there is no returning guest: it is not tried twice."""
        self._stores = site.folder / "stores"
        """Of both hosts, as the visit of the returning guest left them."""

    async def run(self, plan: Sequence[tuple[Cell, int]]) -> None:
        """Measure the whole plan; each row is on disk before the next one begins."""
        left = sum(estimate(cell, self.known) for cell, _ in plan)
        workloads = {cell.workload for cell, _ in plan}
        left += BOOT * len(workloads | ({"d5"} if RETURN in workloads else set()))
        left += (estimate(GOING, self.known) + self.away) * (RETURN in workloads)
        for number, (cell, repeat) in enumerate(plan, 1):
            title = f"[{number}/{len(plan)}] {cell.link_mbit} Mbit/s, {cell.workload}, {cell.method}"
            self.console.print(f"{title} (whole run: {in_words(left)} left)", highlight=False)
            with self.console.status(title) as status:
                await self._row(cell, repeat, number, status, title)
            left = max(0, left - estimate(cell, self.known))

    async def _row(self, cell: Cell, repeat: int, number: int, status: Status, title: str) -> None:
        def report(text: str) -> None:
            status.update(f"{title}: {text}")

        try:
            snapshot = await self._snapshot(cell.workload, report)
            row = await measure(
                cell,
                METHODS[cell.method],
                self.site,
                snapshot,
                room(self.site.folder, f"{number}"),
                report,
                like=self._stores if cell.workload == RETURN else None,
            )
        except (RuntimeError, OSError, LabError, DwcpError) as error:
            self.failures.append(f"{cell}: {error}")
            self.console.print(f"      FAILED: {error}", style="red", highlight=False)
            return
        row = row.model_copy(update={"run": self.started, "repeat": repeat, "machine": self.machine})
        if cell.workload == RETURN:
            row = row.model_copy(update={"away_seconds": self.away})
        self.rows.append(row)
        save(self.file, merge(self.known, self.rows))
        outcome = "" if row.converged else ", GIVEN UP"
        self.console.print(
            f"      {row.seconds:.1f} s, {row.wire_bytes / 1e6:.0f} MB, silence {row.gap_seconds:.2f} s, "
            f"CPU {row.cpu_seconds:.1f} s, load {row.load:.1f}{outcome}",
            highlight=False,
        )

    async def _snapshot(self, workload: str, report: Callable[[str], None]) -> Path:
        if workload not in self._snapshots:
            path = self.site.folder / f"{workload}.snapshot"
            if workload == RETURN:
                if self._no_return:
                    raise MoveFailed(self._no_return)
                try:
                    await self._send_away(path, report)
                except (RuntimeError, OSError, LabError, DwcpError) as error:
                    self._no_return = f"the guest did not get to where it returns from: {error}"
                    raise
                self._snapshots[workload] = path
                return path
            report("booting and saving the guest")
            home = room(self.site.folder, f"boot-{workload}")
            await save_guest(self.site.machine, self.site.ends[0].prefix, home, WORKLOADS[workload], path)
            self._snapshots[workload] = path
        return self._snapshots[workload]

    async def _send_away(self, path: Path, report: Callable[[str], None]) -> None:
        """Move the guest to the other host, let it live there, and save it and what both stores know of it."""

        async def live(guest: Guest, stores: Path) -> None:
            report(f"living at the other host for {in_words(self.away)}")
            await asyncio.sleep(self.away)
            await guest.console.wait(len(beats(bytes(guest.console.text))) + PROOF_BEATS, 60, "guest before its return")
            await put_away(guest, path)
            shutil.move(stores, self._stores)

        snapshot = await self._snapshot("d5", report)
        report("moving the guest to the other host")
        home = room(self.site.folder, "away")
        await measure(GOING, METHODS[GOING.method], self.site, snapshot, home, report, then=live)


def show(rows: Sequence[Row], console: Console, title: str) -> None:
    """Print the table of these rows."""
    console.print(f"\n{title}", highlight=False)
    print(table(lines(rows)))


def draw(folder: Path) -> None:
    """Plot the rows of the results file. Raises ResultsError."""
    rows = load(folder / "migrate.json")
    if not rows:
        raise ResultsError(f"{folder / 'migrate.json'} has no rows to plot: run `make bench` first")
    newest = max(rows, key=lambda row: row.run)
    runs = len({row.run for row in rows})
    note = f"{newest.guest_ram_bytes >> 20} MiB guest ({newest.accel}), {newest.machine}, {newest.run}"
    plot(lines(rows), folder / "migrate.png", note + (f" and {runs - 1} earlier runs" if runs > 1 else ""))


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="make bench ARGS=...",
        description=__doc__,
        epilog=f"links: {', '.join(map(str, LINKS))}; workloads: {', '.join(WORKLOADS)}; "
        f"methods: {', '.join(METHOD_NAMES)}. The rows measured replace those of the same cells in "
        "bench/results/migrate.json; all other rows there stay.",
    )
    made.add_argument(
        "--only", action="append", default=[], metavar="CELLS",
        help=f"measure only these: {GRAMMAR}; may be given again. Example: 100:idle:novacron,plain",
    )  # fmt: skip
    made.add_argument("--repeat", type=int, default=1, metavar="N", help="measure each N times, interleaved")
    made.add_argument(
        "--away", type=float, default=AWAY, metavar="SECONDS",
        help="how long the returning guest lived at the other host; default: %(default)s",
    )  # fmt: skip
    made.add_argument("--plot-only", action="store_true", help="measure nothing: table and plot of the rows there are")
    made.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER", help="default: bench/results")
    return made


def main(words: Sequence[str] | None = None) -> int:
    """0: all was measured; 1: something failed; 2: wrong arguments; 130: interrupted. Rows are kept anyhow."""
    options = parser().parse_args(words)
    console = Console()
    try:
        cells = select(options.only)
        if not 1 <= options.repeat <= 20:
            raise SelectionError(f"--repeat {options.repeat}: use a number from 1 to 20")
        if not 0 <= options.away <= 3600:
            raise SelectionError(f"--away {options.away:g}: use seconds from 0 to 3600")
    except SelectionError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        if not options.plot_only:
            return _measure(cells, options.repeat, options.results, console, options.away)
        draw(options.results)
        show(load(options.results / "migrate.json"), console, "All rows")
    except (ResultsError, LabError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _measure(cells: Sequence[Cell], repeat: int, folder: Path, console: Console, away: float) -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does: with everything cleaned up
    code = 0
    warm()
    with ground() as site:
        bench = Bench(site, folder, console, away)
        try:
            asyncio.run(bench.run(schedule(cells, repeat)))
        except KeyboardInterrupt:
            console.print("interrupted: cleaning up", style="red")
            code = 130
    if bench.rows:
        draw(folder)
        show(bench.rows, console, f"This run ({bench.started}), on {bench.machine}")
        kept = len(merge(bench.known, bench.rows)) - len(bench.rows)
        console.print(f"{len(bench.rows)} rows written, {kept} of other cells kept: {bench.file}", highlight=False)
        console.print(f"plot: {folder / 'migrate.png'}", highlight=False)
    for failure in bench.failures:
        console.print(f"not measured: {failure}", style="red", highlight=False)
    return code or int(bool(bench.failures))


if __name__ == "__main__":
    sys.exit(main())
