"""schedule create, list, delete, trigger, pause, go-on: jobs by the clock."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, get_args

import click
from pydantic import ValidationError

from models.schedule import Job, Overlap, ScheduleReport, ScheduleRequest
from novacron import show_fleet
from novacron.commands.base import Commands, Face, as_json
from novacron.errors import InvalidInput
from novacron.schedules import Schedules
from workflows import request

T = TypeVar("T")


@click.group(cls=Commands)
def schedule() -> None:
    """Evacuations, bulk moves, rebalancing and single moves by the clock.

    These are Temporal's own schedules: `temporal schedule` shows and changes them as well.
    """


@schedule.command()
@click.argument("name")
@click.argument("job", type=click.Choice(get_args(Job)))
@click.option(
    "--input",
    "given",
    default="{}",
    metavar="JSON",
    help="""Input of the job's workflow, such as '{"host": "host-a"}'.""",
)
@click.option("--cron", default="", metavar="EXPR", help="Minute, hour, day of month, month, day of week.")
@click.option(
    "--every", type=float, default=0, metavar="SECONDS", help="Instead of --cron: between starts, at least 60."
)
@click.option("--zone", default="UTC", show_default=True, metavar="NAME", help="Time zone of --cron, as Europe/Berlin.")
@click.option("--jitter", type=float, default=0, metavar="SECONDS", help="Put each start off by up to this, at random.")
@click.option(
    "--overlap",
    type=click.Choice(get_args(Overlap)),
    default="skip",
    show_default=True,
    help="While the job before still runs: leave a start out, keep one or all of them for later, or start beside it.",
)
@click.option(
    "--catch-up",
    type=float,
    default=3600,
    show_default=True,
    metavar="SECONDS",
    help="How late a start may be, because Temporal was away, and still happen. Later ones are left out and counted.",
)
@click.option("--paused", is_flag=True, help="Create it, and let it start nothing yet.")
@as_json
@click.pass_obj
def create(face: Face, /, given: str, job: str, as_json: bool, **wishes: Any) -> None:
    """Create schedule NAME for JOB."""
    try:
        wanted = ScheduleRequest.model_validate({**wishes, "job": {"job": job, "input": json.loads(given)}})
    except json.JSONDecodeError as error:
        raise InvalidInput(f"--input: got {given!r}: {error}", "Give one JSON object.") from None
    except ValidationError as error:
        told = request.complaints(error, ScheduleRequest)
        raise InvalidInput(told, "`novacron schedule create --help` has units and bounds.") from None
    show_fleet.schedules([_run(face, lambda schedules: schedules.create(wanted))], as_json)


@schedule.command("list")
@as_json
@click.pass_obj
def list_all(face: Face, as_json: bool) -> None:
    """List the site's schedules."""

    async def work(schedules: Schedules) -> list[ScheduleReport]:
        return await schedules.list()

    show_fleet.schedules(_run(face, work), as_json)


def _verb(name: str, done: str, text: str, act: Callable[[Schedules, str], Awaitable[None]]) -> click.Command:
    @click.command(name, help=text)
    @click.argument("name")
    @as_json
    @click.pass_obj
    def command(face: Face, name: str, as_json: bool) -> None:
        _run(face, lambda schedules: act(schedules, name))
        show_fleet.answer(f"{done} {name}", as_json)

    return command


schedule.add_command(
    _verb("delete", "deleted", "Delete a schedule. What it has started goes on.", lambda all, name: all.delete(name))
)
schedule.add_command(
    _verb("trigger", "triggered", "Start its job now, as its clock would.", lambda all, name: all.trigger(name))
)
schedule.add_command(
    _verb("pause", "paused", "Let it start nothing until go-on.", lambda all, name: all.pause(name, True))
)
schedule.add_command(
    _verb("go-on", "going on:", "Let it start its job again.", lambda all, name: all.pause(name, False))
)


def _run(face: Face, work: Callable[[Schedules], Awaitable[T]]) -> T:
    async def connected(nova: Any) -> T:
        return await work(Schedules(nova))

    return face.run(connected)
