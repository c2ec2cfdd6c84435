"""events: what was told of moves and hosts, and what is told now."""

from __future__ import annotations

import re
from contextlib import aclosing

import click

from models.events import CloudEvent
from novacron import show
from novacron.client import NovaCron, workflow_id
from novacron.commands.base import Face, as_json
from novacron.errors import InvalidInput
from novacron.events import EventLog, ago

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@click.command()
@click.option("--vm", metavar="VM", help="Only what was told of this VM's moves.")
@click.option("--follow", is_flag=True, help="Go on with each new event, until interrupted.")
@click.option(
    "--since",
    default="1d",
    show_default=True,
    metavar="TIME",
    help="How far back: 90s, 10m, 6h, 30d. Temporal keeps ended runs 30 days. Further back takes longer to read.",
)
@click.option("--last", type=click.IntRange(1, 100_000), default=100, show_default=True, help="Events to begin with.")
@as_json
@click.pass_obj
def events(face: Face, vm: str | None, follow: bool, since: str, last: int, as_json: bool) -> None:
    """Show events, oldest first: moves started, ended, decided on; hosts drained; alarms.

    With --json one CloudEvent a line, as webhooks get them. docs/events.md lists the types.
    """
    moment = ago(_seconds(since))
    if vm is not None:
        workflow_id("site", vm)

    async def work(nova: NovaCron) -> None:
        log = EventLog(nova.client, nova.site, vm)
        if not follow:
            for event in await log.since(moment, last):
                _show(event, as_json)
            return
        async with aclosing(log.follow(moment, last)) as told:
            async for event in told:
                _show(event, as_json)

    face.run(work)


def _seconds(text: str) -> float:
    found = re.fullmatch(r"([0-9]{1,6})([smhd])", text)
    if not found:
        raise InvalidInput(f"since: got {text!r}", "Give a number and s, m, h or d, such as 90s, 10m, 6h, 30d.")
    return int(found[1]) * _UNITS[found[2]]


def _show(event: CloudEvent, as_json: bool) -> None:
    if as_json:
        show.json_line(event.model_dump(mode="json"))
    else:
        click.echo(line(event))


def line(event: CloudEvent) -> str:
    """2026-11-23 15:04:05 counter: move.phase phase=moving percent=0"""
    known = {name: value for name, value in event.data.items() if name not in ("vm", "host") and value not in ("", [])}
    facts = " ".join(f"{name}={_short(value)}" for name, value in known.items())
    when = event.time.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    return f"{when} {event.subject}: {event.type.removeprefix('novacron.')} {facts}".rstrip()


def _short(value: object) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)
