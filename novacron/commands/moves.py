"""migrate, watch, cancel: the moves themselves."""

from __future__ import annotations

from typing import Any

import click
from pydantic import ValidationError

from models.migration import MigrationOutcome, MigrationPolicy
from novacron import show
from novacron.client import Migration, NovaCron, wish, workflow_id
from novacron.commands.base import Face, as_json
from novacron.errors import InvalidInput
from workflows import request

_DEFAULT = MigrationPolicy()


@click.command()
@click.argument("vm")
@click.option("--to", required=True, metavar="HOST", help="Destination host.")
@click.option(
    "--from", "source", metavar="HOST", help="Host that runs the VM. Default: all hosts of the site are asked."
)
@click.option("--watch", is_flag=True, help="Show progress while it runs.")
@click.option("--no-wait", is_flag=True, help="Return as soon as it has started, with its workflow id.")
@click.option(
    "--lanes",
    type=int,
    metavar="N",
    help=f"TCP streams under TLS, 1 to 16. More help on fast or lossy links and cost CPU. Default: {_DEFAULT.lanes}.",
)
@click.option(
    "--codec",
    metavar="NAME",
    help="auto, none, lz4 or zstd. auto follows the link: lz4 while the CPU is the limit, zstd while the link is. "
    f"Default: {_DEFAULT.codec}.",
)
@click.option(
    "--max-downtime",
    "max_downtime_ms",
    type=int,
    metavar="MS",
    help="Longest final pause libvirt may plan for, in milliseconds. Smaller means more passes and a longer move. "
    f"Default: {_DEFAULT.max_downtime_ms}.",
)
@click.option(
    "--bandwidth",
    "bandwidth_mib",
    type=int,
    metavar="MIB",
    help="Upper bound for reading guest memory, in MiB a second, to spare the host. 0 is no bound. "
    f"Default: {_DEFAULT.bandwidth_mib}.",
)
@click.option(
    "--finish-within",
    type=float,
    metavar="SECONDS",
    help="Give up after this long; the VM stays where it is. Large busy VMs need more. "
    f"Default: {_DEFAULT.finish_within:g}.",
)
@click.option(
    "--resume-within",
    type=float,
    metavar="SECONDS",
    help="How long a lost link may stay lost before the move is given up. The guest runs on meanwhile. "
    f"Default: {_DEFAULT.resume_within:g}.",
)
@as_json
@click.pass_obj
def migrate(
    face: Face, /, vm: str, to: str, source: str | None, watch: bool, no_wait: bool, as_json: bool, **wishes: Any
) -> None:
    """Move VM live to another host, and wait until it runs there.

    The move is durable: it goes on when this command is interrupted, and `novacron watch VM` finds it again.
    """
    policy = _policy(wishes)
    wish(vm, to, source=source, policy=policy)  # wrong input is told before anyone is asked

    async def work(nova: NovaCron) -> MigrationOutcome | Migration:
        move = await nova.start(vm, to, source=source, policy=policy)
        return move if no_wait else await _wait(move, watch, as_json)

    _tell(face.run(work), as_json)


@click.command()
@click.argument("id_or_vm")
@as_json
@click.pass_obj
def watch(face: Face, id_or_vm: str, as_json: bool) -> None:
    """Show the progress of a running move, then its result. ID_OR_VM: workflow id or VM name."""
    workflow_id("site", id_or_vm)

    async def work(nova: NovaCron) -> MigrationOutcome:
        return await _wait(nova.migration(id_or_vm), True, as_json)

    _tell(face.run(work), as_json)


@click.command()
@click.argument("id_or_vm")
@click.option("--reason", default="", metavar="TEXT", help="Kept in the history and in the run's error message.")
@as_json
@click.pass_obj
def cancel(face: Face, id_or_vm: str, reason: str, as_json: bool) -> None:
    """Stop a running move; the VM stays on its source. Refused once the VM is switching."""
    workflow_id("site", id_or_vm)

    async def work(nova: NovaCron) -> str:
        return await nova.migration(id_or_vm).cancel(reason)

    answer = face.run(work)
    if as_json:
        show.json_line({"answer": answer})
    else:
        click.echo(answer)


async def _wait(move: Migration, watch: bool, as_json: bool) -> MigrationOutcome:
    if not watch:
        return await move.result()
    with show.progress(as_json) as report:
        return await move.result(watch=report)


def _policy(wishes: dict[str, Any]) -> MigrationPolicy:
    given = {name: value for name, value in wishes.items() if value is not None}
    try:
        return MigrationPolicy.model_validate(given)
    except ValidationError as error:
        raise InvalidInput(request.complaints(error), "`novacron migrate --help` has units and bounds.") from None


def _tell(done: MigrationOutcome | Migration, as_json: bool) -> None:
    if isinstance(done, Migration):
        if as_json:
            show.json_line({"id": done.id, "run_id": done.run_id})
        else:
            click.echo(f"started {done.id}, run {done.run_id}")
    elif as_json:
        show.json_line(done.model_dump(mode="json"))
    else:
        show.outcome(done)
