"""host evacuate, resume and the rest; move-many; rebalance: many VMs at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import click
from pydantic import BaseModel, ValidationError

from models.fleet import (
    EvacuateRequest,
    FleetPlan,
    FleetProgress,
    MoveManyOutcome,
    MoveManyRequest,
    RebalanceOutcome,
    RebalanceRequest,
    Slots,
)
from novacron import show, show_fleet
from novacron.commands.base import Commands, Face, as_json
from novacron.errors import InvalidInput
from novacron.fleet import Fleet, Operation
from workflows import request

M = TypeVar("M", bound=BaseModel)
_SLOTS = Slots()

_slots = click.option(
    "--slots",
    type=click.IntRange(1, 64),
    metavar="N",
    help="Moves that may leave one host, and reach one host, at the same time. More empties a host sooner and slows "
    f"each move. Default: {_SLOTS.out}.",
)
_total = click.option(
    "--total", type=click.IntRange(1, 200), metavar="N", help=f"Moves at once in all. Default: {_SLOTS.total}."
)
_dry_run = click.option("--dry-run", is_flag=True, help="Show what would move where, and change nothing.")
_watch = click.option("--watch", is_flag=True, help="Show progress until nothing moves any more.")
_no_wait = click.option("--no-wait", is_flag=True, help="Return as soon as it has started, with its workflow id.")


@click.group(cls=Commands)
def host() -> None:
    """Maintenance of hosts."""


@host.command()
@click.argument("host")
@_dry_run
@click.option(
    "--non-movable",
    type=click.Choice(["wait", "stop", "skip"]),
    default="wait",
    show_default=True,
    help="VMs that cannot move. wait: look again until they can; skip: leave them running; stop: shut them down in "
    "order, never killed, and only where they are defined.",
)
@click.option(
    "--stop-within",
    type=float,
    metavar="SECONDS",
    help="Time a guest has for its shutdown with --non-movable stop. Default: 300.",
)
@click.option("--to", multiple=True, metavar="HOST", help="Only these may take VMs; may be given again. Default: all.")
@_slots
@_total
@_watch
@as_json
@click.pass_obj
def evacuate(
    face: Face,
    /,
    host: str,
    dry_run: bool,
    slots: int | None,
    total: int | None,
    watch: bool,
    as_json: bool,
    **wishes: Any,
) -> None:
    """Put HOST into maintenance: move its VMs away and keep others off, until `novacron host resume`.

    Returns when the maintenance has started; with --watch, when the host is drained.
    """
    wanted = _wish(EvacuateRequest, host=host, dry_run=dry_run, slots=_of(slots, total), **wishes)

    async def work(fleet: Fleet) -> None:
        evacuation = await fleet.evacuate(wanted)
        if dry_run:
            outcome = await evacuation.result()
            _tell_plan(outcome.plan or FleetPlan(), f"evacuation of {host}", as_json)
        elif watch:
            await _follow(evacuation, as_json)
        else:
            _started(evacuation, as_json)

    _run(face, work)


@host.command()
@click.argument("host")
@click.option("--bring-back", is_flag=True, help="Move back the VMs that were moved away, from where they run now.")
@_no_wait
@as_json
@click.pass_obj
def resume(face: Face, host: str, bring_back: bool, no_wait: bool, as_json: bool) -> None:
    """End the maintenance of HOST: it takes VMs again."""

    async def work(fleet: Fleet) -> None:
        maintenance = fleet.maintenance(host)
        answer = await maintenance.steer("resume", bring_back)
        if no_wait:
            show_fleet.answer(answer, as_json)
            return
        show_fleet.evacuated(await maintenance.result(), as_json)

    _run(face, work)


@host.command()
@click.argument("host")
@as_json
@click.pass_obj
def status(face: Face, host: str, as_json: bool) -> None:
    """Show how far the maintenance of HOST is, each VM, and the proof that it is drained."""

    async def work(fleet: Fleet) -> None:
        show_fleet.progress(await fleet.maintenance(host).progress(), as_json)

    _run(face, work)


def _verb(name: str, update: str, text: str) -> click.Command:
    @click.command(name, help=text)
    @click.argument("host")
    @as_json
    @click.pass_obj
    def command(face: Face, host: str, as_json: bool) -> None:
        async def work(fleet: Fleet) -> None:
            show_fleet.answer(await fleet.maintenance(host).steer(update), as_json)

        _run(face, work)

    return command


host.add_command(_verb("pause", "pause", "Start no further move off HOST; those under way go on."))
host.add_command(_verb("go-on", "go_on", "Go on after a pause."))
host.add_command(_verb("cancel", "cancel", "Give the evacuation of HOST up; it takes VMs again at once."))


@host.command("slots")
@click.argument("host")
@click.argument("slots", type=click.IntRange(1, 64))
@_total
@as_json
@click.pass_obj
def set_slots(face: Face, host: str, slots: int, total: int | None, as_json: bool) -> None:
    """Change how many moves may leave HOST, and reach one host, at the same time."""

    async def work(fleet: Fleet) -> None:
        show_fleet.answer(await fleet.maintenance(host).steer("set_slots", _of(slots, total)), as_json)

    _run(face, work)


@click.command("move-many")
@click.argument("vms", nargs=-1)
@click.option(
    "--label", "labels", multiple=True, metavar="KEY=VALUE", help="VMs that carry this label; all of several."
)
@click.option("--from", "hosts", multiple=True, metavar="HOST", help="VMs that run on HOST; any of several.")
@click.option("--to", metavar="HOST", help="Destination of all. Default: wherever there is room.")
@_dry_run
@_slots
@_total
@_watch
@_no_wait
@as_json
@click.pass_obj
def move_many(
    face: Face,
    vms: tuple[str, ...],
    labels: tuple[str, ...],
    hosts: tuple[str, ...],
    to: str | None,
    dry_run: bool,
    slots: int | None,
    total: int | None,
    watch: bool,
    no_wait: bool,
    as_json: bool,
) -> None:
    """Move many VMs: those named, those with a label, or those of a host, and wait for the end."""
    wanted = _wish(
        MoveManyRequest,
        vms=vms,
        labels=_labels(labels),
        hosts=hosts,
        to=to,
        dry_run=dry_run,
        slots=_of(slots, total),
    )
    if not (vms or labels or hosts):
        raise InvalidInput("nothing chooses VMs", "Name VMs, or give --label or --from.")

    async def work(fleet: Fleet) -> None:
        moves = await fleet.move_many(wanted)
        outcome: MoveManyOutcome | None = await _ended(moves, watch, no_wait and not dry_run, as_json)
        if outcome is not None and outcome.plan is not None:
            _tell_plan(outcome.plan, "moves", as_json)
        elif outcome is not None:
            show_fleet.moved(outcome, as_json)

    _run(face, work)


@click.command()
@click.option("--threshold", type=float, metavar="POINTS", help="Least difference worth a move. Default: 20.")
@click.option("--settle", type=float, metavar="POINTS", help="Difference at which it is enough. Default: 10.")
@click.option("--batch", type=int, metavar="N", help="Moves of one round. Default: 10.")
@click.option("--rounds", type=int, metavar="N", help="Rounds at most. Default: 3.")
@click.option("--cool-down", type=float, metavar="SECONDS", help="Pause between rounds. Default: 300.")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="Only VMs that carry this label are moved.")
@_dry_run
@_watch
@_no_wait
@as_json
@click.pass_obj
def rebalance(
    face: Face, /, labels: tuple[str, ...], dry_run: bool, watch: bool, no_wait: bool, as_json: bool, **wishes: Any
) -> None:
    """Even out how full the memory of the site's hosts is. POINTS are percentage points of memory in use between the
    fullest and the emptiest host."""
    wanted = _wish(RebalanceRequest, labels=_labels(labels), dry_run=dry_run, **wishes)

    async def work(fleet: Fleet) -> None:
        balancing = await fleet.rebalance(wanted)
        outcome: RebalanceOutcome | None = await _ended(balancing, watch, no_wait and not dry_run, as_json)
        if outcome is not None and outcome.plan is not None:
            _tell_plan(outcome.plan, f"{outcome.before:.1f} points apart", as_json)
        elif outcome is not None:
            show_fleet.balanced(outcome, as_json)

    _run(face, work)


def _run(face: Face, work: Callable[[Fleet], Awaitable[None]]) -> None:
    async def connected(nova: Any) -> None:
        await work(Fleet(nova))

    face.run(connected)


async def _ended(operation: Operation[Any], watch: bool, no_wait: bool, as_json: bool) -> Any:
    if no_wait:
        _started(operation, as_json)
        return None
    if watch:
        await _follow(operation, as_json)
    return await operation.result()


async def _follow(operation: Operation[Any], as_json: bool) -> FleetProgress | None:
    last = None
    lines = show_fleet.Lines(as_json)
    async for last in operation.follow():
        lines(last)
    if last is not None and not as_json:
        show_fleet.progress(last, as_json)
    return last


def _started(operation: Operation[Any], as_json: bool) -> None:
    if as_json:
        show.json_line({"id": operation.id, "run_id": operation.run_id})
    else:
        click.echo(f"started {operation.id}, run {operation.run_id}")


def _tell_plan(plan: FleetPlan, title: str, as_json: bool) -> None:
    if as_json:
        show.json_line({"plan": plan.model_dump(mode="json")})
    else:
        show_fleet.plan(plan, title)


def _of(slots: int | None, total: int | None) -> Slots:
    each = {} if slots is None else {"out": slots, "into": slots, "link": slots}
    return Slots.model_validate(each if total is None else {**each, "total": total})


def _labels(given: tuple[str, ...]) -> dict[str, str]:
    wrong = next((each for each in given if "=" not in each), None)
    if wrong is not None:
        raise InvalidInput(f"--label: got {wrong!r}", "Give KEY=VALUE, for example --label tier=gold.")
    return dict(each.split("=", 1) for each in given)


def _wish(model: type[M], **wishes: Any) -> M:
    given = {name: value for name, value in wishes.items() if value is not None}
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise InvalidInput(request.complaints(error, model), "`--help` has units and bounds.") from None
