"""python -m bench.scale: the real workflows on a simulated site, 1,000 hosts with 10,000 VMs unless told otherwise.

Starts a Temporal server of its own, one real worker for each simulated host, and control workers; evacuates many hosts
at once, with failures; then counts every VM. Writes bench/results/scale.json, docs/scale.md and its picture.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from bench import scale_report
from bench.machine import now_text, processors_text
from bench.results import ResultsError
from bench.scale_ground import GroundError
from bench.scale_results import ScaleRun, load, save
from bench.scale_run import Found, Run, Size
from workers.lab import temporal

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results" / "scale.json"
SAY_EVERY = 5.0


class Teller:
    """Progress: in place on a terminal, else a line now and then."""

    def __init__(self, every: float = SAY_EVERY) -> None:
        self._every = every
        self._last = -every
        self._terminal = sys.stderr.isatty()

    def __call__(self, text: str) -> None:
        now = time.monotonic()
        if self._terminal:
            print(f"\r\x1b[K{text}", end="" if text.startswith("evacuation: ") else "\n", file=sys.stderr, flush=True)
        elif not text.startswith("evacuation: ") or now - self._last >= self._every:
            self._last = now
            print(text, file=sys.stderr, flush=True)


def written(size: Size, found: Found, began: str, words: Sequence[str], busy: float) -> ScaleRun:
    return ScaleRun(
        run=began,
        command=shlex.join(["python", "-m", "bench.scale", *words]),
        commit=_commit(),
        machine=processors_text(),
        versions=_versions(),
        load=round(busy, 1),
        hosts=size.hosts,
        vms=size.vms,
        evacuated=size.evacuate,
        move_seconds=size.move_seconds,
        faults=size.faults,
        silent=size.silent,
        crashed=size.crashes,
        control_workers=size.control_workers,
        stages=tuple(found.stages),
        placement_ms=found.placement_ms,
        histories=found.histories,
        peak_mib=found.peak_mib,
        database_mib=found.database_mib,
        facts=tuple(found.facts),
        failed_moves=found.failed_moves,
        drain=thinned(found.drain),
    )


def thinned(points: Sequence[tuple[float, int]], most: int = 120) -> tuple[tuple[float, int], ...]:
    """Enough points for a picture: those at which the number changed, evenly thinned, with the first and the last."""
    steps = [point for i, point in enumerate(points) if i == 0 or point[1] != points[i - 1][1]]
    every = max(1, -(-len(steps) // most))
    kept = steps[::every]
    if points and kept[-1] != points[-1]:
        kept.append(points[-1])
    return tuple(kept)


async def _until_told(run: Run) -> Found:
    """SIGTERM ends the run as Ctrl-C does: with everything it started."""
    task = asyncio.create_task(run.run())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task


def _commit() -> str:
    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "--no-optional-locks", *words], cwd=ROOT, capture_output=True, text=True, check=False
        ).stdout.strip()

    return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")


def _versions() -> dict[str, str]:
    said = subprocess.run([str(temporal.binary()), "--version"], capture_output=True, text=True, check=True).stdout
    return {
        "temporal": said.strip().removeprefix("temporal version "),
        "temporalio": version("temporalio"),
        "python": sys.version.split()[0],
    }


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    made = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    usual = Size()

    def number(name: str, default: float, kind: type, text: str) -> None:
        made.add_argument(f"--{name}", type=kind, default=default, metavar="N", help=f"{text} (default: {default})")

    number("hosts", usual.hosts, int, "simulated hosts, each with a worker of its own; at most 2000")
    number("vms", usual.vms, int, "VMs, dealt out evenly")
    number("evacuate", usual.evacuate, int, "hosts that are evacuated at once")
    number("moves", usual.moves, int, "single moves that are started at once, before")
    number("faults", usual.faults, float, "share of moves made to fail: refused, no data path, broken, leftover")
    number("silent", usual.silent, int, "hosts that never get a worker; one of them is to be evacuated")
    number("crashes", usual.crashes, int, "workers of hosts stopped in the middle, and started again")
    number("seconds", usual.move_seconds, float, "median of how long the memory of a VM takes to cross")
    number("control", usual.control_workers, int, "control worker processes")
    number("seed", usual.seed, int, "of memory sizes, durations and failures")
    number("within", usual.within, float, "seconds after which the evacuations are given up")
    made.add_argument("--json", action="store_true", help="end with the run as one line of JSON")
    made.add_argument("--results", type=Path, default=RESULTS, metavar="FILE", help="default: bench/results/scale.json")
    made.add_argument("--page-only", action="store_true", help="run nothing: write docs/scale.md from the results")
    return made.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """0: every fact holds; 1: one does not; 2: the bench could not run."""
    given = list(sys.argv[1:] if words is None else words)
    options = parse(given)
    try:
        if options.page_only:
            return scale_report.write(load(options.results))
        size = Size(
            hosts=options.hosts, vms=options.vms, evacuate=options.evacuate, moves=options.moves,
            faults=options.faults, silent=options.silent, crashes=options.crashes, move_seconds=options.seconds,
            control_workers=options.control, seed=options.seed, within=options.within,
        )  # fmt: skip
        logging.getLogger("temporalio.activity").setLevel(logging.ERROR)  # failures are made on purpose here
        began, busy = now_text(), os.getloadavg()[0]
        run = written(size, asyncio.run(_until_told(Run(size, Teller()))), began, given, busy)
        save(options.results, [run])
        if options.results == RESULTS:
            scale_report.write(load(RESULTS))
    except (GroundError, ResultsError) as error:
        print(error, file=sys.stderr)
        return 2
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("ended before its time; nothing was written", file=sys.stderr)
        return 2
    print(json.dumps(run.model_dump(mode="json")) if options.json else scale_report.section(run))
    return int(not run.holds)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # the SDK's native runtime may crash while the interpreter tears down; nothing is left to do
