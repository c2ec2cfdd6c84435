"""docs/scale.md and its picture, written from bench/results/scale.json and bench/scale_notes.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.report import aligned
from bench.scale_results import ScaleRun, Spread

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "scale.md"
PICTURE = ROOT / "docs" / "scale.svg"
NOTES = ROOT / "bench" / "scale_notes.md"

STAGES = {
    "workers": "start a worker for each host",
    "inventory": "ask every host what runs on it",
    "plan": "plan evacuations, one after the other",
    "moves": "single moves, started at once",
    "evacuation": "evacuate all, started at once",
    "ending": "end the maintenance",
}
WIDTH, HEIGHT, LEFT, BOTTOM = 720, 260, 60, 40
COLOURS = ("#9aa5b1", "#3f6ea8", "#e4572e", "#f2a93b")


def page(runs: Sequence[ScaleRun], notes: str) -> str:
    """The whole page."""
    parts = [
        "# A large site",
        "This page is written by `python -m bench.scale` from [bench/results/scale.json](../bench/results/scale.json) "
        "and [bench/scale_notes.md](../bench/scale_notes.md); a test compares.",
        notes.strip(),
    ]
    if runs:
        parts += [_overview(runs), "![VMs on the hosts that are evacuated, by time](scale.svg)"]
    return "\n\n".join([*parts, *(section(run) for run in reversed(runs))]) + "\n"


def _overview(runs: Sequence[ScaleRun]) -> str:
    rows = [("hosts", "VMs", "evacuated at once", "made to fail", "moves/s", "workflows/s", "seconds", "facts")]
    for run in runs:
        stage = run.stage("evacuation")
        figures = (
            (f"{stage.moves_per_second:.2f}", f"{stage.workflows_per_second:.2f}", f"{stage.seconds:.0f}")
            if stage
            else ("-", "-", "-")
        )
        size = (f"{run.hosts:,}", f"{run.vms:,}", str(run.evacuated), f"{100 * run.faults:.0f} %")
        rows.append((*size, *figures, "all hold" if run.holds else "**BROKEN**"))
    return "Of the evacuations:\n\n" + aligned(rows)


def section(run: ScaleRun) -> str:
    """One run."""
    broken = f"{100 * run.faults:.0f} % of the moves made to fail" if run.faults else "no failures"
    more = [f"{run.silent} silent hosts"] if run.silent else []
    more += [f"{run.crashed} workers stopped in the middle"] if run.crashed else []
    parts = [
        f"## {run.hosts:,} hosts, {run.vms:,} VMs, {run.evacuated} evacuated at once, {broken}",
        f"`{run.command}`, {run.run}, commit {run.commit}, on {run.machine}, load {run.load} before it began; "
        f"{'; '.join([f'{key} {value}' for key, value in run.versions.items()])}. "
        f"Moves take {run.move_seconds:g} s in the median{''.join(f', {each}' for each in more)}.",
        _stages(run),
        _histories(run),
        f"Choosing one destination among all hosts: {run.placement_ms.median:.2f} ms in the median, "
        f"{run.placement_ms.p95:.2f} ms at most in 95 % of {run.placement_ms.count}.",
        "Memory at its peak: " + ", ".join(f"{what} {mib} MiB" for what, mib in run.peak_mib.items())
        + f"; Temporal's database {run.database_mib} MiB.",
        _facts(run),
    ]  # fmt: skip
    if run.failed_moves:
        listed = ", ".join(f"{count} {kind}" for kind, count in sorted(run.failed_moves.items()))
        parts.append(f"Moves that failed, as they were meant to: {listed}.")
    return "\n\n".join(parts)


def _stages(run: ScaleRun) -> str:
    rows = [("stage", "seconds", "workflows ended", "a second", "VMs moved", "a second", "start p50", "p95", "CPU s")]
    for stage in run.stages:
        starts = (f"{stage.starts.median:.2f} s", f"{stage.starts.p95:.2f} s") if stage.starts.count else ("-", "-")
        cpu = ", ".join(f"{what} {seconds:.0f}" for what, seconds in stage.cpu_seconds.items())
        rows.append(
            (
                STAGES.get(stage.name, stage.name), f"{stage.seconds:.1f}", str(stage.workflows),
                f"{stage.workflows_per_second:.2f}", str(stage.moves), f"{stage.moves_per_second:.2f}", *starts, cpu,
            )
        )  # fmt: skip
    return aligned(rows)


def _histories(run: ScaleRun) -> str:
    rows = [("workflow", "runs", "events, median", "most", "KiB, median", "most", "seconds, median", "p95")]
    for each in run.histories:
        rows.append(
            (
                each.type, str(each.events.count), f"{each.events.median:.0f}", f"{each.events.most:.0f}",
                f"{each.bytes.median / 1024:.0f}", f"{each.bytes.most / 1024:.0f}", *_two(each.seconds),
            )
        )  # fmt: skip
    return aligned(rows)


def _two(seconds: Spread) -> tuple[str, str]:
    return (f"{seconds.median:.1f}", f"{seconds.p95:.1f}") if seconds.count else ("-", "-")


def _facts(run: ScaleRun) -> str:
    rows = [("at the end", "expected", "found")]
    rows += [
        (fact.what, str(fact.expected), str(fact.found) if fact.holds else f"**{fact.found}**") for fact in run.facts
    ]
    return aligned(rows)


def picture(runs: Sequence[ScaleRun]) -> str:
    """VMs on the hosts that are evacuated, over time, one line for each run."""
    shown = [run for run in runs if len(run.drain) > 1]
    longest = max((run.drain[-1][0] for run in shown), default=1.0)
    high = max((run.drain[0][1] for run in shown), default=1) or 1
    wide, tall = WIDTH - LEFT - 20, HEIGHT - BOTTOM - 20
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<path d="M{LEFT} 20V{20 + tall}H{LEFT + wide}" fill="none" stroke="#333"/>',
        f'<text x="{LEFT - 6}" y="28" text-anchor="end">{high}</text>',
        f'<text x="{LEFT - 6}" y="{20 + tall}" text-anchor="end">0</text>',
        f'<text x="{LEFT + wide}" y="{HEIGHT - 22}" text-anchor="end">{longest:.0f} s</text>',
        f'<text x="{LEFT + wide / 2:.0f}" y="{HEIGHT - 6}" text-anchor="middle">'
        "VMs still on the hosts that are evacuated, by seconds since the start</text>",
    ]
    for number, run in enumerate(shown):
        colour = COLOURS[number % len(COLOURS)]
        points = " ".join(
            f"{LEFT + wide * second / longest:.1f},{20 + tall * (1 - left / high):.1f}" for second, left in run.drain
        )
        lines.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        name = f"{run.hosts} hosts, {run.evacuated} evacuated, {100 * run.faults:.0f} % made to fail"
        lines.append(
            f'<text x="{LEFT + wide - 4}" y="{36 + 16 * number}" text-anchor="end" fill="{colour}">{name}</text>'
        )
    return "\n".join([*lines, "</svg>"]) + "\n"


def write(runs: Sequence[ScaleRun]) -> int:
    PAGE.write_text(page(runs, NOTES.read_text()))
    PICTURE.write_text(picture(runs))
    return 0
