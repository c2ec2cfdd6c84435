"""policy, pause, resume, explain: a running move is steered, and says what was done to it and why."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any

import click

from novacron import show, story
from novacron.client import Migration, NovaCron, workflow_id
from novacron.commands.base import Face, as_json
from novacron.errors import InvalidInput
from workflows.move import steering


@click.command()
@click.argument("id_or_vm")
@click.option(
    "--set",
    "changes",
    multiple=True,
    required=True,
    metavar="KEY=VALUE",
    help=f"One of {', '.join(steering.CHANGEABLE)}; may be given again. finish_within is in seconds from the start of "
    "the move and can grow to twice what it was; finish_by is a time such as 2030-01-31T04:00:00Z, or null; downtime "
    "in ms, max_slowdown in percent, bounds in MiB/s.",
)
@as_json
@click.pass_obj
def policy(face: Face, id_or_vm: str, changes: tuple[str, ...], as_json: bool) -> None:
    """Change goals of a running move. All that is named changes at once, or nothing, with the reason."""
    wanted = dict(_pair(change) for change in changes)
    _tell(face, id_or_vm, as_json, lambda move: move.set_policy(**wanted))


@click.command()
@click.argument("id_or_vm")
@click.option(
    "--for",
    "seconds",
    type=float,
    default=600,
    show_default=True,
    metavar="SECONDS",
    help="It goes on by itself after so long. Its deadline does not wait.",
)
@as_json
@click.pass_obj
def pause(face: Face, id_or_vm: str, seconds: float, as_json: bool) -> None:
    """Pause a running move: nothing crosses the link, the guest runs on at its source."""
    _tell(face, id_or_vm, as_json, lambda move: move.pause(seconds))


@click.command()
@click.argument("id_or_vm")
@as_json
@click.pass_obj
def resume(face: Face, id_or_vm: str, as_json: bool) -> None:
    """Let a paused move go on."""
    _tell(face, id_or_vm, as_json, lambda move: move.resume())


@click.command()
@click.argument("id_or_vm")
@as_json
@click.pass_obj
def explain(face: Face, id_or_vm: str, as_json: bool) -> None:
    """Tell the story of a move, running or ended: its phases, every decision with its figures, which goals it kept."""
    workflow_id("site", id_or_vm)

    async def work(nova: NovaCron) -> Any:
        return await nova.migration(id_or_vm).explain()

    found = face.run(work)
    if as_json:
        show.json_line(found.model_dump(mode="json"))
    else:
        story.tell(found)


def _tell(face: Face, id_or_vm: str, as_json: bool, update: Callable[[Migration], Coroutine[Any, Any, str]]) -> None:
    workflow_id("site", id_or_vm)

    async def work(nova: NovaCron) -> str:
        return await update(nova.migration(id_or_vm))

    answer = face.run(work)
    if as_json:
        show.json_line({"answer": answer})
    else:
        click.echo(answer)


def _pair(change: str) -> tuple[str, Any]:
    """'finish_within=900' -> ('finish_within', 900); what is no JSON is text."""
    name, equals, value = change.partition("=")
    if not equals or not name:
        raise InvalidInput(f"--set: got {change!r}", "Give KEY=VALUE, such as --set finish_within=900.")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
