"""migrate, watch, cancel, limit, post-copy: the moves themselves."""

from __future__ import annotations

from typing import Any

import click
from pydantic import ValidationError

from models.migration import MigrationOutcome, MigrationPolicy
from novacron import show
from novacron.client import Migration, NovaCron, wish, workflow_id
from novacron.commands.base import Face, as_json
from novacron.errors import InvalidInput
from workflows import request, steering

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
    "--mode",
    metavar="NAME",
    help="pre-copy, post-copy or hybrid. post-copy switches after one pass: any guest gets across, but from then on it "
    "needs both hosts until all memory has arrived, and the move cannot be cancelled. hybrid switches only when "
    f"pre-copy does not converge. Default: {_DEFAULT.mode}.",
)
@click.option(
    "--disks",
    metavar="NAME",
    help="shared or copy. copy: image files that the destination does not see are copied while the VM runs; the source "
    f"keeps its own. Default: {_DEFAULT.disks}.",
)
@click.option(
    "--lanes",
    type=int,
    metavar="N",
    help=f"TCP streams under TLS, 1 to 16. More help on fast or lossy links and cost CPU. Default: {_DEFAULT.lanes}.",
)
@click.option(
    "--max-lanes",
    type=int,
    metavar="N",
    help="TCP streams the data path may grow to when it measures that more carry more, 1 to 16. "
    f"Default: {_DEFAULT.max_lanes}.",
)
@click.option(
    "--codec",
    metavar="NAME",
    help="auto, raw, none, lz4 or zstd. auto follows the link: lz4 while the CPU is the limit, zstd while the link is. "
    f"none: known pages are left out, nothing is compressed. raw: bytes as they are. Default: {_DEFAULT.codec}.",
)
@click.option(
    "--page-memory",
    "page_memory_mib",
    type=int,
    metavar="MIB",
    help="Memory at each end for pages sent before, so that copies and small changes cost little on the link. As much "
    f"as the guest has is best; 0 is none. Default: {_DEFAULT.page_memory_mib}.",
)
@click.option(
    "--store/--no-store",
    default=None,
    help="Use, and fill, both hosts' content stores: a VM that comes back sends only what changed. Costs disk space "
    f"and I/O. Default: {'--store' if _DEFAULT.store else '--no-store'}.",
)
@click.option(
    "--store-scope",
    metavar="NAME",
    help="vm, tenant or site: whose stored pages may serve. Wider saves more, and leaks more: who may start moves can "
    f"find out whether a page is known. Default: {_DEFAULT.store_scope}.",
)
@click.option("--tenant", metavar="NAME", help=f"Whose VM it is, for --store-scope tenant. Default: {_DEFAULT.tenant}.")
@click.option(
    "--protection",
    metavar="NAME",
    help="tls or none. none: guest memory in the clear, for less CPU; refused unless the settings of both hosts trust "
    f"the migration network. Default: {_DEFAULT.protection}.",
)
@click.option(
    "--rdma",
    metavar="NAME",
    help="auto or never. auto: RDMA where both hosts have it and protection is none (RDMA is not encrypted). "
    f"Default: {_DEFAULT.rdma}.",
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
    "--limit",
    "wire_mib",
    type=int,
    metavar="MIB",
    help="Upper bound on the link, in MiB a second, to spare other traffic; the move takes longer. `novacron limit` "
    f"changes it while the move runs. 0 is no bound. Default: {_DEFAULT.wire_mib}.",
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
