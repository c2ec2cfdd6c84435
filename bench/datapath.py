"""make bench-datapath: what the data path costs and saves by itself, without a QEMU, against peers in the same run.

A stream is fed to a process at one end and compared, byte by byte, at the other. Groups: cpu, tail, wire, random.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from bench.carriers import End
from bench.corpora import corpus
from bench.cpu import process_seconds
from bench.datapath_plan import GRAMMAR, GROUPS, LOOPBACK, RANDOM, RECORDED, Cell, schedule, select
from bench.datapath_report import plot, tables
from bench.datapath_results import Pass, figures, load, merge, save
from bench.feed import Sink, WrongBytes, feed
from bench.ground import Ground, ground
from bench.guest import record
from bench.machine import in_words, machine_text, now_text, warm
from bench.move import interface_bytes, room
from bench.plan import WORKLOADS, SelectionError
from bench.recorded import NotAStream, Stream, opened
from bench.results import ResultsError
from bench.subjects import SUBJECTS, NotCarried, Spot
from dwcp.errors import DwcpError
from workers.lab.errors import LabError

RESULTS = Path(__file__).parent / "results"
FILE = "datapath.json"

RANDOM_BYTES = {100: 48 << 20, 1000: 256 << 20}
"""Size of the stream of random pages, by the link's Mbit/s: some seconds of it."""

RECORDED_WORKLOAD = "d5"


def carry(cell: Cell, stream: Stream, spot: Spot) -> Pass:
    """Carry the stream once and read every counter. `spot.folder` exists and is empty.

    Raises WrongBytes, NotCarried, DwcpError, OSError.
    """
    group = GROUPS[cell.group]
    load_before = os.getloadavg()[0]
    with SUBJECTS[cell.subject].carry(spot) as carried:
        sink = Sink(carried.accept, stream)
        sink.start()
        sent = _sent(carried.pids[0], spot.near)
        before = [process_seconds(pid) for pid in carried.pids]
        began = time.monotonic()
        try:
            written = feed(carried.feeder, stream, group.pace, close=group.pace is None)
        except OSError as error:
            raise NotCarried(f"no more bytes are taken: {error}. {carried.trouble()}") from error
        sink.complete.wait()
        if group.pace is not None:
            carried.feeder.close()
        sink.over()
        used = [process_seconds(pid) - spent for pid, spent in zip(carried.pids, before, strict=True)]
        status = carried.facts()
        return Pass(
            run="",
            **cell._asdict(),
            seconds=sink.last_at - began,
            tail_seconds=sink.last_at - written,
            near_cpu_seconds=used[0],
            far_cpu_seconds=used[1],
            setup_cpu_seconds=sum(before),
            stream_bytes=len(stream),
            ram_bytes=stream.ram_bytes,
            wire_bytes=_sent(carried.pids[0], spot.near) - sent,
            frame_bytes=status.wire_out if status else 0,
            codec=status.codec if status else "",
            pages=status.pages if status else None,
            load=load_before,
        )


def _sent(pid: int, end: End) -> int:
    """Bytes the end's interface has sent; 0 on loopback, which others use too."""
    return interface_bytes(Path(f"/proc/{pid}/net/dev").read_text(), end.interface) if end.namespace else 0


class Bench:
    """One run: the streams made so far, passes so far, and what is said about it."""

    def __init__(self, site: Ground, folder: Path, recorded: Path | None, console: Console) -> None:
        self.site = site
        self.file = folder / FILE
        self.known = load(self.file)
        self.passes: list[Pass] = []
        self.failures: list[str] = []
        self.console = console
        self.started = now_text()
        self.machine = machine_text()
        self._recorded = recorded

    def run(self, plan: Sequence[tuple[Cell, int]]) -> None:
        """Measure the whole plan; each pass is on disk before the next one begins."""
        for number, (cell, repeat) in enumerate(plan, 1):
            title = f"[{number}/{len(plan)}] {cell}"
            with self.console.status(title):
                try:
                    done = self._pass(cell, number)
                except (WrongBytes, NotCarried, NotAStream, DwcpError, LabError, RuntimeError, OSError) as error:
                    self.failures.append(f"{cell}: {error}")
                    self.console.print(f"{title}: FAILED: {error}", style="red", highlight=False, soft_wrap=True)
                    continue
            self.passes.append(done.model_copy(update={"run": self.started, "repeat": repeat, "machine": self.machine}))
            save(self.file, merge(self.known, self.passes))
            self.console.print(
                f"{title}: {done.seconds:.2f} s, CPU {done.near_cpu_seconds:.2f} + {done.far_cpu_seconds:.2f} s, "
                f"{done.ram_per_cpu / 1e6:.0f} MB RAM per CPU second, tail {done.tail_seconds * 1e3:.1f} ms, "
                f"{(done.wire_bytes or done.frame_bytes) / 1e6:.1f} MB on the way, load {done.load:.1f}",
                highlight=False,
                soft_wrap=True,
            )

    def _pass(self, cell: Cell, number: int) -> Pass:
        path = self._stream(cell)
        near, far = self.site.ends
        if cell.link_mbit == LOOPBACK:
            near, far = [
                End(name=end.name, address="127.0.0.1", interface="lo", namespace="", tls=end.tls)
                for end in (near, far)
            ]
        else:
            self.site.shape(cell.link_mbit)
        folder = room(self.site.folder, f"{number}")
        with opened(cell.input, path, GROUPS[cell.group].at_most) as stream:
            return carry(cell, stream, Spot(near, far, folder))

    def _stream(self, cell: Cell) -> Path:
        """The file with the input of a cell; made when it is not there."""
        if cell.input == RECORDED and self._recorded:
            return self._recorded
        size = RANDOM_BYTES[cell.link_mbit] if cell.input == RANDOM else 0
        path = self.site.folder / f"{cell.input}{size or ''}.stream"
        if path.exists():
            return path
        if cell.input == RECORDED:
            import asyncio

            dirty = WORKLOADS[RECORDED_WORKLOAD]
            home = room(self.site.folder, "record")
            asyncio.run(record(self.site.machine, self.site.ends[0].prefix, home, dirty, path))
            return path
        with _pages(cell.input, size, path) as pages:
            from bench.corpora.stream import write_stream

            write_stream(pages, path, again=0)  # each page once: nothing is saved by sending it again
        return path


@contextlib.contextmanager
def _pages(name: str, size: int, near: Path) -> Iterator[Path]:
    """A file of raw pages: a corpus, or `size` random bytes."""
    if not size:
        yield corpus(name)
        return
    path = near.with_suffix(".pages")
    with path.open("wb") as file:
        for _ in range(size >> 20):
            file.write(os.urandom(1 << 20))
    try:
        yield path
    finally:
        path.unlink()


def draw(folder: Path) -> None:
    """Tables and plot of the passes there are. Raises ResultsError."""
    passes = load(folder / FILE)
    if not passes:
        raise ResultsError(f"{folder / FILE} has no passes: run `make bench-datapath` first")
    lines = figures(passes)
    newest = max(passes, key=lambda each: each.run)
    for title, text in tables(lines):
        print(f"\n{title}\n{text}")
    plot(lines, folder / "datapath.png", f"{newest.machine}, {newest.run}")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="make bench-datapath ARGS=...",
        description=__doc__,
        epilog="; ".join(f"{name}: {group.what} ({', '.join(group.subjects)})" for name, group in GROUPS.items()),
    )
    made.add_argument(
        "--only", action="append", default=[], metavar="CELLS",
        help=f"measure only these: {GRAMMAR}; may be given again. Example: cpu:zstd-pipe,lz4-tls",
    )  # fmt: skip
    made.add_argument(
        "--repeat", type=int, default=3, metavar="N", help="measure each N times, interleaved; default: 3"
    )
    made.add_argument("--stream", type=Path, metavar="FILE", help="a stream QEMU has written; default: record one")
    made.add_argument("--plot-only", action="store_true", help="measure nothing: tables and plot of what there is")
    made.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER", help="default: bench/results")
    return made


def main(words: Sequence[str] | None = None) -> int:
    """0: all was measured; 1: something failed; 2: wrong arguments; 130: interrupted. Passes are kept anyhow."""
    options = parser().parse_args(words)
    console = Console()
    try:
        cells = select(options.only)
        if not 1 <= options.repeat <= 20:
            raise SelectionError(f"--repeat {options.repeat}: use a number from 1 to 20")
        if options.stream and not options.stream.is_file():
            raise SelectionError(f"--stream {options.stream}: no such file")
    except SelectionError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        code = 0 if options.plot_only else _measure(cells, options, console)
        draw(options.results)
    except (ResultsError, LabError) as error:
        print(error, file=sys.stderr)
        return 1
    return code


def _measure(cells: Sequence[Cell], options: argparse.Namespace, console: Console) -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does: with everything cleaned up
    sys.setswitchinterval(0.0005)  # the clock at the far end must not wait for the feeder
    code, began = 0, time.monotonic()
    warm()
    with ground() as site:
        bench = Bench(site, options.results, options.stream, console)
        try:
            bench.run(schedule(cells, options.repeat))
        except KeyboardInterrupt:
            console.print("interrupted: cleaning up", style="red")
            code = 130
    console.print(
        f"{len(bench.passes)} passes in {in_words(time.monotonic() - began)}, on {bench.machine}: {bench.file}",
        highlight=False,
    )
    for failure in bench.failures:
        console.print(f"not measured: {failure}", style="red", highlight=False)
    return code or int(bool(bench.failures))


if __name__ == "__main__":
    sys.exit(main())
