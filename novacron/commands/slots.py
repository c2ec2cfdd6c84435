"""slots: which moves run under the site's limits, and who waits for what."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from models.slots import SlotLine, SlotsState
from novacron import show
from novacron import slots as client
from novacron.commands.base import Face, as_json
from workflows import details
from workflows.sharing.slots import usage


@click.command()
@as_json
@click.pass_obj
def slots(face: Face, as_json: bool) -> None:
    """Show the moves that have a slot, those that wait for one, for what and behind whom.

    How many moves may run at once, in the site, out of and into a host, on a link and of a tenant, is the field `slots`
    of the control worker's settings. Without it every move begins at once, and none is listed here.
    """
    state = face.run(client.slots)
    if as_json:
        show.json_line(state.model_dump(mode="json"))
    elif not state.lines:
        click.echo("no move has a slot or waits for one")
    else:
        _tell(state)


def _tell(state: SlotsState) -> None:
    now = datetime.now(UTC)
    lines = sorted(state.lines, key=lambda line: (not line.held, line.before, line.wish.since))
    rows = [_row(line, now) for line in lines]
    show.table(["MOVE", "FROM", "TO", "TENANT", "PRIORITY", "ASKED", "STATE"], rows)
    if not state.counted:
        click.echo("the moves of the site are being counted; until then none begins")
    if uses := usage(state.lines, state.limits):
        click.echo()
        full = [(use.place.name, f"{use.used} of {use.place.limit}", str(use.waiting)) for use in uses]
        show.table(["BOUND", "USED", "WAIT"], full)


def _row(line: SlotLine, now: datetime) -> tuple[str, ...]:
    wish = line.wish
    asked = details.duration(max(0.0, (now - wish.since).total_seconds()))
    state = "has its slot" if line.held else f"waits: {line.why}"
    name = wish.workflow_id.rpartition("/")[2]
    return name, wish.source, wish.to, wish.tenant or "-", str(wish.priority), f"{asked} ago", state
