"""vm label: what people say of a VM, for policies and bulk moves to choose by."""

from __future__ import annotations

import click

from models.planning import LabelReport
from novacron import show
from novacron.client import NovaCron
from novacron.commands.base import Face, as_json
from novacron.errors import InvalidInput


@click.command("label")
@click.argument("vm")
@click.argument("changes", nargs=-1, metavar="[KEY=VALUE | KEY-]...")
@click.option("--host", metavar="HOST", help="Host that has the VM. Default: all hosts of the site are asked.")
@as_json
@click.pass_obj
def label(face: Face, vm: str, changes: tuple[str, ...], host: str | None, as_json: bool) -> None:
    """Give VM labels (KEY=VALUE) or take them off (KEY-), and show all it has.

    Labels are part of the VM's own definition and move with it. 32 at most; keys and values of letters, digits, dot,
    underscore and dash, up to 63 characters.
    """
    give, take = read(changes)

    async def work(nova: NovaCron) -> LabelReport:
        return await nova.label(vm, give, take, source=host)

    found = face.run(work)
    if as_json:
        show.json_line(found.model_dump(mode="json"))
    else:
        click.echo(f"{found.vm} on {found.host}: {show.labels(found.labels) or 'no labels'}")


def read(changes: tuple[str, ...]) -> tuple[dict[str, str], list[str]]:
    """(labels to give, labels to take off). InvalidInput names the argument."""
    give: dict[str, str] = {}
    take: list[str] = []
    for change in changes:
        key, equals, value = change.partition("=")
        if equals:
            give[key] = value
        elif change.endswith("-") and change != "-":
            take.append(change[:-1])
        else:
            raise InvalidInput(f"changes: got {change!r}", "Write KEY=VALUE to give a label, KEY- to take it off.")
    return give, take
