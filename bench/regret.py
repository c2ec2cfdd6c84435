"""How far the choice of codecs is from the best one could do, on real memory, link by link.

Every batch of every corpus is packed by every rung (measured.py); then the real Chooser sends the corpus through a
simulated pipeline (pipeline.py), and its time is compared with two oracles that know everything beforehand:

* `fixed`: the best single rung, through the same pipeline;
* `each`: the best rung for each batch, as a lower bound: the best mixture for which neither the sum of the work nor the
  sum of the link's time is longer, with nothing lost at the ends or to waiting. No chooser can reach it.

Regret is the chooser's time over an oracle's, less one. `python -m bench.regret` prints a table and writes
results/regret.json and .png; `--curves` prints the curves of dwcp/encoding/features.py instead.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.corpora import NAMES, corpus
from bench.measured import BATCH, Packing, Table, batches, table
from bench.pipeline import Pipeline, Run
from dwcp.encoding.chooser import TRANSPORT_SECONDS, Chooser
from dwcp.encoding.codec import CHAIN_LEVELS, RUNGS, Rung
from dwcp.encoding.features import KNOTS, sample_share
from workers.lab.errors import LabError

LINKS: Final = (20, 50, 100, 200, 500, 1000, 2500, 5000, 10000)
"""Mbit/s."""
GUEST: Final = 4 << 30
"""Bytes that go to the codecs in one run: learning the link at the start is part of it, as in a move."""
CORES: Final = (1, 4)
RESULTS: Final = Path(__file__).parent / "results"
MUST: Final = 0.05
GOAL: Final = 0.02


@dataclass(frozen=True)
class Row:
    corpus: str
    link_mbit: int
    cores: int
    seconds: float
    fixed: Rung
    fixed_seconds: float
    each_seconds: float
    none_seconds: float
    used: dict[Rung, int]

    @property
    def against_fixed(self) -> float:
        return self.seconds / self.fixed_seconds - 1

    @property
    def against_each(self) -> float:
        return self.seconds / self.each_seconds - 1


def choose_through(raws: Sequence[bytes], measured: Table, mbit: int, cores: int) -> Run:
    """The corpus through the pipeline, by the real chooser."""
    chooser = Chooser(RUNGS, cores)
    pipeline = Pipeline(measured, lambda _now: mbit * 125e3, cores)
    return pipeline.run(lambda now, i: chooser.next(now, raws[i % len(raws)]), chooser)


def guest_of(measured: Table) -> Table:
    """The table of a guest with at least GUEST bytes of such content: the corpus several times, as if always new."""
    times = -(-GUEST // sum(measured.raw))
    packings = {rung: Packing(each.wire * times, each.cpu * times) for rung, each in measured.packings.items()}
    return Table(measured.raw * times, packings)


def fixed(measured: Table, mbit: int, cores: int) -> dict[Rung, float]:
    """Seconds of every rung alone."""

    def seconds(rung: Rung) -> float:
        return Pipeline(measured, lambda _now: mbit * 125e3, cores).run(lambda _now, _i: rung).seconds

    return {rung: seconds(rung) for rung in RUNGS}


def each(measured: Table, mbit: int, cores: int) -> float:
    """The lower bound on seconds: the best mixture, by the dual of its linear program; one chain codec at most."""
    alone = [rung for rung in RUNGS if rung not in CHAIN_LEVELS]
    return min(_mixture(measured, [*alone, *chain], mbit, cores) for chain in [(), *((c,) for c in CHAIN_LEVELS)])


def _mixture(measured: Table, rungs: Sequence[Rung], mbit: int, cores: int) -> float:
    wire = np.array([measured.packings[rung].wire for rung in rungs])
    cpu = np.array([measured.packings[rung].cpu for rung in rungs])
    alone = np.array([[0.0 if rung in CHAIN_LEVELS else 1.0] for rung in rungs])
    link = wire / (mbit * 125e3)
    work = (cpu + wire * TRANSPORT_SECONDS) / cores
    chain = cpu * (1 - alone)
    best = 0.0
    # Any weights of the three limits, summing to one, bound the time from below; the best weights meet it.
    for price in np.linspace(0, 1, 101):
        for part in (0.0, 0.25, 0.5, 0.75, 1.0) if chain.any() and cores > 1 else (0.0,):
            costs = (1 - price) * link + price * ((1 - part) * work + part * chain)
            best = max(best, float(costs.min(axis=0).sum()))
    return best


def rows(names: Iterable[str], links: Iterable[int], cores: Iterable[int]) -> list[Row]:
    found = []
    links, cores = list(links), list(cores)
    for name in names:
        measured, raws = guest_of(table(name)), list(batches(corpus(name)))
        for count in cores:
            for mbit in links:
                run = choose_through(raws, measured, mbit, count)
                times = fixed(measured, mbit, count)
                best = min(times, key=times.__getitem__)
                found.append(
                    Row(
                        name, mbit, count, run.seconds, best, times[best], each(measured, mbit, count),
                        times["none"], run.used,
                    )
                )  # fmt: skip
    return found


def curves(names: Iterable[str]) -> None:
    """Print the curves of features.py, fitted to the corpora: least squares, smooth where there is no data."""
    samples, shares, nanoseconds = [], {r: [] for r in RUNGS}, {r: [] for r in RUNGS}  # type: ignore[var-annotated]
    for name in names:
        measured = table(name)
        for i, raw in enumerate(batches(corpus(name))):
            if len(raw) == BATCH:
                samples.append(sample_share(raw))
                for rung in RUNGS:
                    shares[rung].append(measured.packings[rung].wire[i] / BATCH)
                    nanoseconds[rung].append(measured.packings[rung].cpu[i] / BATCH * 1e9)
    for label, data, digits, least in (("SHARE", shares, 4, 0.005), ("NANOSECONDS", nanoseconds, 2, 0.05)):
        print(label)
        for rung in RUNGS:
            if rung != "none":
                values = ", ".join(f"{max(least, v):.{digits}f}" for v in _fit(np.array(samples), np.array(data[rung])))
                print(f'    "{rung}": ({values}),')


def _fit(samples: Any, values: Any) -> Any:
    knots = np.array(KNOTS)
    left = np.clip(np.searchsorted(knots, samples, side="right") - 1, 0, len(knots) - 2)
    part = (samples - knots[left]) / (knots[left + 1] - knots[left])
    basis = np.zeros((len(samples), len(knots)))
    basis[np.arange(len(samples)), left] = 1 - part
    basis[np.arange(len(samples)), left + 1] = part
    bend = np.zeros((len(knots) - 2, len(knots)))
    for i in range(len(knots) - 2):
        bend[i, i : i + 3] = (1, -2, 1)
    capped = np.minimum(values, np.percentile(values, 98))
    return np.linalg.lstsq(np.vstack([basis, bend]), np.concatenate([capped, np.zeros(len(bend))]), rcond=None)[0]


def report(found: Sequence[Row]) -> str:
    lines = ["| corpus | link Mbit/s | cores | seconds | best rung | vs it | vs each batch | vs none | used |"]
    lines.append("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for row in found:
        used = " ".join(f"{rung} {count}" for rung, count in sorted(row.used.items(), key=lambda x: -x[1])[:4])
        lines.append(
            f"| {row.corpus} | {row.link_mbit} | {row.cores} | {row.seconds:.2f} | {row.fixed} | "
            f"{row.against_fixed:+.1%} | {row.against_each:+.1%} | {row.none_seconds / row.seconds:.2f}x | {used} |"
        )
    return "\n".join(lines)


def summary(found: Sequence[Row]) -> str:
    """Regret by link, mean and worst over corpora and processors."""
    lines = ["| link Mbit/s | vs best rung | worst | vs each batch | worst |", "| --- | --- | --- | --- | --- |"]
    for mbit in [*dict.fromkeys(row.link_mbit for row in found), 0]:
        mine = [row for row in found if mbit in (0, row.link_mbit)]
        fixed_, each_ = [row.against_fixed for row in mine], [row.against_each for row in mine]
        lines.append(
            f"| {mbit or 'all'} | {np.mean(fixed_):+.1%} | {max(fixed_):+.1%} | {np.mean(each_):+.1%} | "
            f"{max(each_):+.1%} |"
        )
    return "\n".join(lines)


def plot(found: Sequence[Row], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    counts = sorted({row.cores for row in found})
    figure, panels = pyplot.subplots(1, len(counts), figsize=(6 * len(counts), 4), sharey=True, squeeze=False)
    for axes, cores in zip(panels[0], counts, strict=True):
        for name in dict.fromkeys(row.corpus for row in found):
            mine = [row for row in found if row.corpus == name and row.cores == cores]
            line = axes.plot(
                [row.link_mbit for row in mine], [100 * row.against_fixed for row in mine], "o-", label=name
            )
            colour = line[0].get_color()
            axes.plot(
                [row.link_mbit for row in mine], [100 * row.against_each for row in mine], ":", color=colour, lw=1
            )
        axes.axhline(100 * MUST, color="#c0392b", lw=0.8, ls="--")
        axes.axhline(100 * GOAL, color="#27ae60", lw=0.8, ls="--")
        axes.set(xscale="log", xlabel="link, Mbit/s", title=f"{cores} processor{'s' if cores > 1 else ''}")
    panels[0][0].set_ylabel("time over the best rung (dotted: bound per batch), %")
    panels[0][0].legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--curves", action="store_true", help="print the fitted curves and nothing else")
    parser.add_argument("--only", nargs="*", choices=NAMES, default=NAMES, metavar="CORPUS")
    parser.add_argument("--links", nargs="*", type=int, default=LINKS, metavar="MBIT")
    parser.add_argument("--cores", nargs="*", type=int, default=CORES, metavar="N")
    given = parser.parse_args()
    try:
        if given.curves:
            curves(given.only)
            return 0
        found = rows(given.only, given.links, given.cores)
    except LabError as error:
        print(error, file=sys.stderr)
        return 1
    print(report(found), summary(found), sep="\n\n")
    if (tuple(given.only), tuple(given.links), tuple(given.cores)) == (NAMES, LINKS, CORES):
        written = [
            {**asdict(row), "against_fixed": row.against_fixed, "against_each": row.against_each} for row in found
        ]
        (RESULTS / "regret.json").write_text(json.dumps(written, indent=1) + "\n")
        plot(found, RESULTS / "regret.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
