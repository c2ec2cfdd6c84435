"""How the command line shows operations on many VMs and schedules: what novacron/show.py is to one move."""

from __future__ import annotations

from collections.abc import Sequence

import click

from models.fleet import EvacuateOutcome, FleetPlan, FleetProgress, MoveManyOutcome, RebalanceOutcome
from models.schedule import ScheduleReport
from novacron import show
from workflows import details


def plan(plan: FleetPlan, title: str) -> None:
    size = details.size(plan.memory_mib << 20)
    click.echo(f"plan, {title}: {len(plan.moves)} VMs with {size} of memory would move, {len(plan.stuck)} cannot")
    moves = [(move.vm, f"{move.source} → {move.to}", f"{move.memory_mib} MiB", move.why) for move in plan.moves]
    stuck = [(each.vm, f"cannot move: {each.choice}", f"{each.memory_mib} MiB", each.why) for each in plan.stuck]
    if moves or stuck:
        show.table(["VM", "WHERE", "MEMORY", "WHY"], [*moves, *stuck])
    _notes(plan.notes)


def progress(seen: FleetProgress, as_json: bool) -> None:
    if as_json:
        show.json_line(seen.model_dump(mode="json"))
        return
    click.echo(line(seen))
    if seen.drained is not None:
        drained = seen.drained
        click.echo(
            f"drained: {drained.host} (libvirt {drained.libvirt_version}) answered at "
            f"{drained.asked_at:%Y-%m-%d %H:%M:%S} UTC that it runs no VM"
        )
    if seen.vms:
        show.table(["VM", "", "TO", ""], [(vm.vm, vm.fate, vm.to, vm.note) for vm in seen.vms])


class Lines:
    """A line for each change."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._last = ""

    def __call__(self, seen: FleetProgress) -> None:
        if self._as_json:
            show.json_line({"progress": seen.model_dump(mode="json")})
            return
        told = line(seen.model_copy(update={"eta": None, "elapsed": 0}))
        if told != self._last:
            self._last = told
            click.echo(line(seen), err=True)


def line(seen: FleetProgress) -> str:
    parts = [f"{seen.moved} moved", f"{seen.running} moving", f"{seen.waiting} waiting", f"{seen.failed} failed"]
    parts.append(f"{details.size(seen.memory_moved_mib << 20)} of {details.size(seen.memory_mib << 20)}")
    if seen.eta is not None and seen.running:
        parts.append(f"{details.duration(seen.eta)} left")
    if seen.note:
        parts.append(seen.note)
    return f"{seen.phase}{' (paused)' if seen.paused else ''}: {', '.join(parts)}"


def answer(text: str, as_json: bool) -> None:
    if as_json:
        show.json_line({"answer": text})
    else:
        click.echo(text)


def evacuated(outcome: EvacuateOutcome, as_json: bool) -> None:
    if as_json:
        show.json_line(outcome.model_dump(mode="json"))
        return
    how = "is out of maintenance" if outcome.phase == "done" else f"is out of maintenance ({outcome.phase})"
    click.echo(
        f"{outcome.host} {how} after {details.duration(outcome.seconds)}; {len(outcome.moved)} VMs were moved away"
    )
    if outcome.brought_back:
        click.echo(f"brought back: {', '.join(outcome.brought_back)}")
    for vm, why in outcome.not_brought_back.items():
        click.echo(f"not brought back: {vm}: {why}")
    if outcome.stopped:
        click.echo(f"shut down and not started again: {', '.join(outcome.stopped)}")
    _notes(outcome.notes)


def moved(outcome: MoveManyOutcome, as_json: bool) -> None:
    if as_json:
        show.json_line(outcome.model_dump(mode="json"))
        return
    size = details.size(outcome.memory_moved_mib << 20)
    took = details.duration(outcome.seconds)
    click.echo(f"{outcome.phase}: {outcome.moved} VMs with {size} of memory moved in {took}, {outcome.failed} failed")
    for each in outcome.failures:
        click.echo(f"failed: {each.vm}: {each.why}")


def balanced(outcome: RebalanceOutcome, as_json: bool) -> None:
    if as_json:
        show.json_line(outcome.model_dump(mode="json"))
        return
    click.echo(
        f"{outcome.phase}: {len(outcome.moved)} VMs moved; {outcome.before:.1f} points between the fullest and the "
        f"emptiest host before, {outcome.after:.1f} after"
    )
    for each in outcome.failures:
        click.echo(f"failed: {each.vm}: {each.why}")
    _notes(outcome.notes)


def schedules(found: Sequence[ScheduleReport], as_json: bool) -> None:
    if as_json:
        show.json_line({"schedules": [each.model_dump(mode="json") for each in found]})
        return
    rows = [
        (
            each.name,
            each.job,
            each.when,
            f"{each.overlap}, catch-up {details.duration(each.catch_up)}",
            "paused" if each.paused else f"{each.next[0]:%Y-%m-%d %H:%M} UTC" if each.next else "never",
            f"{each.last:%Y-%m-%d %H:%M:%S} UTC" if each.last else "-",
            each.last_end or "-",
            f"{each.skipped} / {each.missed}",
        )
        for each in found
    ]
    show.table(["NAME", "JOB", "WHEN", "OVERLAP", "NEXT", "LAST", "ENDED", "SKIPPED / MISSED"], rows)


def _notes(notes: Sequence[str]) -> None:
    for note in notes:
        click.echo(f"note: {note}")
