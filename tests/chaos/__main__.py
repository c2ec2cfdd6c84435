"""`make chaos`: break one part after another in every phase of a move, on real parts, and prove what is left.

    python -m tests.chaos [--seed N] [--only WHAT:PHASE]...
    python -m tests.chaos --seconds 600          combinations drawn at random, each with a seed of its own
    python -m tests.chaos --list | --report

A row of each combination goes to bench/results/chaos.json. Ends with 1 when a VM was lost or doubled, its counter
broken, or anything left behind. Ctrl-C takes the lab down. Needs root.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import secrets
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.chaos import results, trial
from tests.chaos.ground import Ground
from tests.chaos.table import MATRIX, Combination, pick
from tests.chaos.trial import Trial
from workers.lab.errors import LabError
from workers.lab.settings import LabSettings

NAME, PORT = "chaos", 26233
SEED = 1
USUAL = 18.0
"""Seconds of a combination, until this run has its own."""
RANDOM_FILE = Path("var/chaos/random.json")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, help=f"to repeat a run; default {SEED}, at random with --seconds")
    parser.add_argument("--only", metavar="WHAT:PHASE", action="append", default=[], help="WHAT alone: all its phases")
    parser.add_argument("--seconds", type=float, help="draw combinations at random for so long")
    parser.add_argument("--results", type=Path, help=f"default {results.FILE}; with --seconds {RANDOM_FILE}")
    parser.add_argument("--list", action="store_true", help="name the combinations")
    parser.add_argument("--report", action="store_true", help=f"write the table in {results.PAGE} anew")
    asked = parser.parse_args(arguments)
    try:
        chosen = pick(asked.only) if asked.only else list(MATRIX)
    except ValueError as error:
        parser.error(str(error))
    if asked.list:
        print("\n".join(each.name for each in chosen))
        return 0
    if asked.report:
        results.PAGE.write_text(results.page(results.PAGE.read_text(), results.load()))
        return 0
    if asked.seconds is None:
        seed = SEED if asked.seed is None else asked.seed
        random.Random(seed).shuffle(chosen)
        plan, file = iter([(each, seed) for each in chosen]), asked.results or results.FILE
        many: int | None = len(chosen)
    else:
        seed = secrets.randbelow(1 << 32) if asked.seed is None else asked.seed
        plan, file, many = _drawn(chosen, seed, asked.seconds), asked.results or RANDOM_FILE, None
    print(f"seed {seed}: {many or 'combinations at random for'} {'combinations' if many else f'{asked.seconds:g} s'}")
    try:
        trials = asyncio.run(_run(plan, many, file))
    except LabError as error:
        print(f"chaos: {error}", file=sys.stderr)
        return 1
    except asyncio.CancelledError:
        print("chaos: interrupted; the lab is down", file=sys.stderr)
        return 130
    return _summary(trials)


def _drawn(chosen: list[Combination], seed: int, seconds: float) -> Iterator[tuple[Combination, int]]:
    chance = random.Random(seed)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield chance.choice(chosen), chance.randrange(1 << 32)


def settings() -> LabSettings:
    """A lab of its own, unless the environment names another."""
    own = {"name": ("NOVACRON_LAB", NAME), "port": ("NOVACRON_LAB_PORT", PORT)}
    return LabSettings.from_environment(**{
        field: value for field, (variable, value) in own.items() if not os.environ.get(variable)
    })  # fmt: skip


async def _run(plan: Iterator[tuple[Combination, int]], many: int | None, file: Path) -> list[Trial]:
    done: list[Trial] = []
    begun = time.monotonic()
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    async with Ground.opened(settings()) as ground:
        for combination, seed in plan:
            print(f"{_ahead(len(done), many, begun)} {combination.name} ... ", end="", flush=True)
            ended = await trial.run(ground, combination, seed)
            done.append(ended)
            results.save([ended.row()], file)
            _tell(ended)
    return done


def _ahead(done: int, many: int | None, begun: float) -> str:
    """`[ 12/90, 18 min left]`"""
    if many is None:
        return f"[{done + 1}]"
    each = (time.monotonic() - begun) / done if done else USUAL
    return f"[{done + 1:>3}/{many}, {each * (many - done) / 60:.0f} min left]"


def _tell(ended: Trial) -> None:
    row = ended.row()
    verdict = row.outcome if row.good else f"FAILED: {row.outcome} (seed {row.seed})"
    print(f"{verdict}, {row.seconds:.0f} s", flush=True)
    for problem in ended.problems:
        print(f"      {problem}", flush=True)
    if ended.told and (ended.problems or ended.row().outcome == "stayed"):
        print(f"      the workflow said: {ended.told[:300]}", flush=True)


def _summary(trials: list[Trial]) -> int:
    rows = [each.row() for each in trials]
    bad = [row for row in rows if not row.good]
    outcomes = {name: sum(row.outcome == name for row in rows) for name in dict.fromkeys(row.outcome for row in rows)}
    print(f"{len(rows)} combinations: {', '.join(f'{many} {name}' for name, many in outcomes.items())}")
    for row in bad:
        print(f"  again: make chaos ARGS='--seed {row.seed} --only \"{row.what}:{row.phase}\"'")
    print("nothing lost, doubled, broken or left behind" if not bad else f"{len(bad)} not as they must be")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
