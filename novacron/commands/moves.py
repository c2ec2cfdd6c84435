"""migrate, watch, cancel, limit, start-now, post-copy: the moves themselves."""

from __future__ import annotations

from typing import Any

import click

from models.migration import MigrationOutcome
from novacron import show
from novacron.client import Migration, NovaCron, wish, workflow_id
from novacron.commands.base import Face, as_json
from novacron.commands.plan import show_plan
from novacron.commands.policy import policy_of, policy_options
from workflows.move import steering


@click.command()
@click.argument("vm")
@click.option("--to", required=True, metavar="HOST", help="Destination host.")
@click.option(
    "--from", "source", metavar="HOST", help="Host that runs the VM. Default: all hosts of the site are asked."
)
@click.option("--watch", is_flag=True, help="Show progress while it runs.")
@click.option("--no-wait", is_flag=True, help="Return as soon as it has started, with its workflow id.")
@click.option("--dry-run", is_flag=True, help="Show the plan, as `novacron plan` does, and start nothing.")
@policy_options
@as_json
@click.pass_obj
def migrate(
    face: Face,
    /,
    vm: str,
    to: str,
    source: str | None,
    watch: bool,
    no_wait: bool,
    dry_run: bool,
    policy_name: str | None,
    as_json: bool,
    **wishes: Any,
) -> None:
    """Move VM live to another host, and wait until it runs there.

    The move is durable: it goes on when this command is interrupted, and `novacron watch VM` finds it again.
    """
    policy = policy_of(wishes)
    wish(vm, to, source=source, policy=policy, policy_name=policy_name)  # wrong input is told before anyone is asked
    if dry_run:
        show_plan(face, vm, to, source, policy, policy_name, as_json=as_json)
        return

    async def work(nova: NovaCron) -> MigrationOutcome | Migration:
        move = await nova.start(vm, to, source=source, policy=policy, policy_name=policy_name)
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

    _answer(face.run(work), as_json)


@click.command()
@click.argument("id_or_vm")
@click.argument("mib", type=click.IntRange(0, steering.MOST_MIB))
@as_json
@click.pass_obj
def limit(face: Face, id_or_vm: str, mib: int, as_json: bool) -> None:
    """Bound what a running move puts on the link to MIB MiB a second; 0 takes the bound off."""
    workflow_id("site", id_or_vm)

    async def work(nova: NovaCron) -> str:
        return await nova.migration(id_or_vm).limit(mib)

    _answer(face.run(work), as_json)


@click.command("start-now")
@click.argument("id_or_vm")
@as_json
@click.pass_obj
def start_now(face: Face, id_or_vm: str, as_json: bool) -> None:
    """Start a move at once that waits for a window of its policy. Everything is checked anew first."""
    workflow_id("site", id_or_vm)

    async def work(nova: NovaCron) -> str:
        return await nova.migration(id_or_vm).start_now()

    _answer(face.run(work), as_json)


@click.command("post-copy")
@click.argument("id_or_vm")
@as_json
@click.pass_obj
def post_copy(face: Face, id_or_vm: str, as_json: bool) -> None:
    """Let the VM of a running move switch now; the rest of its memory follows, and nothing can be cancelled any more.

    The move must have been started with --mode hybrid or post-copy.
    """
    workflow_id("site", id_or_vm)

    async def work(nova: NovaCron) -> str:
        return await nova.migration(id_or_vm).post_copy_now()

    _answer(face.run(work), as_json)


def _answer(answer: str, as_json: bool) -> None:
    if as_json:
        show.json_line({"answer": answer})
    else:
        click.echo(answer)


async def _wait(move: Migration, watch: bool, as_json: bool) -> MigrationOutcome:
    if not watch:
        return await move.result()
    with show.progress(as_json) as report:
        return await move.result(watch=report)


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
