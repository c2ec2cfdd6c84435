"""How the command line shows a plan: findings first, then what was measured, then the strategies side by side."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.table import Table

from models.host import Finding
from models.planning import Plan, Range, Strategy
from workflows.details import duration, rate, size

WIDTH = 140


def plan(made: Plan) -> None:
    console = Console(soft_wrap=True)
    where = f"{made.source} → {made.destination}" if made.source else f"→ {made.destination}"
    verdict = "can move" if made.ok else "cannot move"
    console.print(f"{made.vm}: {where}: {verdict}", markup=False, highlight=False)
    for finding in (*made.blockers, *made.warnings):
        _finding(console, finding)
    console.print()
    _facts(console, made)
    if made.strategies:
        console.print()
        _strategies(console, made)
    console.print()
    choice = f"{made.chosen}: {made.reason}" if made.chosen else made.reason
    console.print(choice, markup=False, highlight=False)


def _finding(console: Console, finding: Finding) -> None:
    console.print(f"  {finding.severity} [{finding.id}] {finding.what}", markup=False, highlight=False)
    for text in (finding.why, finding.remedy and f"→ {finding.remedy}"):
        if text:
            console.print(f"      {text}", markup=False, highlight=False, style="dim")


def _facts(console: Console, made: Plan) -> None:
    rows = [("policy", made.policy_why)] if made.policy_why else []
    if made.starts_at:
        rows.append(("starts", f"{made.starts_at.isoformat(timespec='minutes')}, when the next window opens"))
    if made.memory_bytes:
        taken = f", {size(made.dirtying.resident_bytes)} of the host taken" if made.dirtying.resident_bytes else ""
        rows.append(("memory", f"{size(made.memory_bytes)}{taken}"))
    if made.disk_bytes:
        rows.append(("disks to copy", size(made.disk_bytes)))
    if made.strategies:
        rows.append(("dirty rate", f"{_range(made.dirtying.bytes_per_second, rate)} ({made.dirtying.note})"))
        link = made.link
        trip = f", round trip {link.round_trip * 1000:.1f} ms" if link.round_trip else ""
        how = (
            f"{size(link.sent_bytes)} in {duration(link.seconds)} over {link.lanes} lanes" if link.lanes else link.note
        )
        rows.append(("link", f"{_range(link.bytes_per_second, rate)}{trip} ({how})"))
        rows.append(("smaller by", _range(made.ratio, lambda value: f"{value:.1f}x")))
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim")
    table.add_column()
    for row in rows:
        table.add_row(*row)
    console.print(table, width=None if console.is_terminal else WIDTH)


def _strategies(console: Console, made: Plan) -> None:
    table = Table("", *(_title(each, made) for each in made.strategies), box=None, pad_edge=False)
    lines: list[tuple[str, Callable[[Strategy], str]]] = [
        ("ends", lambda each: each.converges),
        ("on the link", lambda each: _range(each.wire_bytes, size)),
        ("time", lambda each: _range(each.seconds, duration)),
        ("final pause", lambda each: _range(each.downtime_ms, lambda value: f"{value:.0f} ms")),
        ("then thin for", lambda each: _range(each.thin_seconds, duration) if _thin(each) else "-"),
    ]
    for name, tell in lines:
        table.add_row(name, *(tell(each) for each in made.strategies))
    for number, goal in enumerate(made.strategies[0].goals):
        met = [each.goals[number].met for each in made.strategies]
        table.add_row(f"{goal.name} {goal.wanted}", *met)
    console.print(table, width=None if console.is_terminal else WIDTH)


def _title(strategy: Strategy, made: Plan) -> str:
    return f"{strategy.mode.upper()} *" if strategy.mode == made.chosen else strategy.mode.upper()


def _thin(strategy: Strategy) -> bool:
    return bool(strategy.thin_seconds.high or strategy.thin_seconds.likely)


def _range(values: Range, tell: Callable[[float], str]) -> str:
    """ "likely (low to high)"; what has no bound is said so."""
    if values.low is None:
        return "not known" if values.likely is None else tell(values.likely)
    high = tell(values.high) if values.high is not None else "no bound"
    if values.likely is None:
        return f"from {tell(values.low)} to {high}"
    low, likely = tell(values.low), tell(values.likely)
    return likely if low == likely == high else f"{likely} ({low} to {high})"
