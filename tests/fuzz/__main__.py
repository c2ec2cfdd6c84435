"""`make fuzz`: run every decoder with damaged input, in processes of their own, and keep what breaks one.

    python -m tests.fuzz [--seconds N] [--only NAME,NAME] [--seed N] [--jobs N] [--sanitize]
    python -m tests.fuzz --replay var/fuzz/NAME-0123456789abcdef.bin
    python -m tests.fuzz --list

Seconds are of processor time, over all targets. The seed is printed; the same seed and code give the same inputs. What
breaks a decoder (an exception it does not promise, a crash, a hang, memory beyond bounds) is kept under var/fuzz/ with
the command that does it again, and makes the exit code 1.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fuzz import sanitize, worker
from tests.fuzz.targets import TARGETS, load
from tests.fuzz.worker import FOLDER, Report

DEFAULT_SECONDS = 600.0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=DEFAULT_SECONDS, help="of processor time, over all targets")
    parser.add_argument("--only", metavar="NAMES", help="these targets, separated by commas")
    parser.add_argument("--seed", type=int, help="to repeat a run")
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 1) // 2), help="processes at a time")
    parser.add_argument(
        "--sanitize", action="store_true", help="C code with address and undefined behaviour sanitizers"
    )
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where findings go")
    parser.add_argument("--replay", metavar="FILE", type=Path, help="run one kept input again")
    parser.add_argument("--list", action="store_true", help="name the targets")
    asked = parser.parse_args(arguments)
    if asked.list:
        print("\n".join(TARGETS))
        return 0
    extensions = sanitize.build() if asked.sanitize else None
    if asked.replay:
        return worker.replay(asked.replay, extensions)
    names = asked.only.split(",") if asked.only else list(TARGETS)
    seed = asked.seed if asked.seed is not None else secrets.randbelow(1 << 32)
    print(
        f"seed {seed}: {len(names)} targets, {asked.seconds:g} s of processor time, {asked.jobs} at a time", flush=True
    )
    return run(names, seed, asked.seconds, asked.jobs, asked.folder, extensions)


def run(names: list[str], seed: int, seconds: float, jobs: int, folder: Path, extensions: Path | None) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    weights, missing = _weights(names)
    unit = seconds / max(1e-9, sum(weights.values()))

    def one(name: str) -> Report:
        return worker.drive(name, seed, unit * weights[name], folder, extensions)

    with ThreadPoolExecutor(jobs) as pool:
        reports = [Report(name, trouble=[why]) for name, why in missing.items()]
        for report in pool.map(one, weights):
            reports.append(report)
            _tell(report)
    print(table(reports))
    broken = [report.name for report in reports if report.findings or report.trouble]
    executions = sum(report.executions for report in reports)
    print(f"{executions} inputs in {time.monotonic() - begun:.0f} s; seed {seed}; ", end="")
    print(f"findings in: {', '.join(broken)}" if broken else "nothing found")
    return 1 if broken else 0


def _weights(names: list[str]) -> tuple[dict[str, float], dict[str, str]]:
    """Of the targets that load, and why the others do not."""
    weights: dict[str, float] = {}
    missing: dict[str, str] = {}
    for name in names:
        try:
            weights[name] = load(name).weight
        except (KeyError, ImportError, AttributeError) as error:
            missing[name] = f"{name} cannot be run: {type(error).__name__}: {error}"
            print(missing[name], flush=True)
    return weights, missing


def _tell(report: Report) -> None:
    for line in report.trouble:
        print(f"{report.name}: {line}", flush=True)
    for finding in report.findings:
        print(f"{report.name}: {finding.what}\n    kept as {finding.path}\n    again: {finding.again}", flush=True)


def table(reports: list[Report]) -> str:
    rows = [("target", "inputs", "a second", "outcomes", "findings")]
    for report in reports:
        rate = f"{report.executions / report.seconds:.0f}" if report.seconds else "-"
        found = str(len(report.findings)) if not report.trouble else f"{len(report.findings)}, did not run"
        rows.append((report.name, str(report.executions), rate, str(report.outcomes), found))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if not n else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


if __name__ == "__main__":
    sys.exit(main())
