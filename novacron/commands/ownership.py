"""recover, reconcile, owners: exactly one copy of each VM, and one record that says where."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import click

from models.lease import Lease
from models.recovery import ReconcileReport, RecoverReport
from novacron import show
from novacron.client import NovaCron, check_name
from novacron.commands.base import Face, as_json
from novacron.errors import Ambiguous, InvalidInput
from novacron.ownership import Ownership

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SHORTEST, _LONGEST = timedelta(minutes=1), timedelta(days=7)


@click.command()
@click.argument("vm")
@click.option("--dry-run", is_flag=True, help="Look, and say what would be done; change nothing.")
@click.option(
    "--left-cloud",
    is_flag=True,
    help="You have seen that no instance of VM runs in the cloud that its record names: the record follows the hosts.",
)
@as_json
@click.pass_obj
def recover(face: Face, vm: str, dry_run: bool, left_cloud: bool, as_json: bool) -> None:
    """Set VM right after an operation on it died: a terminated move, a host that went away.

    Asks every host of the site, and all must answer. Removes a paused copy that never ran, ends jobs and data paths
    that are nobody's, goes on with a post-copy whose two halves are there, corrects the owner record. Refuses and
    explains everything else; two copies are never resolved by guessing. Harmless when all is well.
    """
    check_name("vm", vm)

    async def work(nova: NovaCron) -> RecoverReport:
        return await Ownership(nova).recover(vm, dry_run, left_cloud)

    report = face.run(work)
    if as_json:
        show.json_line(report.model_dump(mode="json"))
        return
    click.echo(f"{report.vm}: {report.state}{f' on {report.host}' if report.host else ''}")
    for done in report.done:
        click.echo(f"  {'would' if report.dry_run else 'done'}: {done}")
    if not report.done:
        click.echo("  nothing to repair")
    for note in report.notes:
        click.echo(f"  note: {note}")


@click.command()
@click.option(
    "--every",
    metavar="TIME",
    help="Do it on a schedule instead, such as 10m (units s, m, h, d; 1m to 7d). Shorter finds trouble sooner and asks "
    "every host more often. One that is still running is not joined by another; those missed while Temporal was down "
    "are left out.",
)
@click.option("--never", is_flag=True, help="Delete that schedule.")
@click.option("--dry-run", is_flag=True, help="Compare only: start no recovery, let no host take work.")
@as_json
@click.pass_obj
def reconcile(face: Face, every: str | None, never: bool, dry_run: bool, as_json: bool) -> None:
    """Compare what the hosts have with the owner records, and recover the VMs that look wrong.

    Also finds moves that were terminated or failed in the last two hours, and lets hosts that were started anew take
    VMs again. Ends with exit code 8 when there are two copies of a VM.
    """
    if sum((every is not None, never, dry_run)) > 1:
        raise click.UsageError("--every, --never and --dry-run exclude each other")
    if every is not None or never:
        _schedule(face, _pace(every) if every is not None else None, as_json)
        return

    async def work(nova: NovaCron) -> ReconcileReport:
        return await Ownership(nova).reconcile(dry_run)

    report = face.run(work)
    if as_json:
        show.json_line(report.model_dump(mode="json"))
    else:
        _tell(report)
    if any(each.result == "two copies" for each in report.told):
        click.get_current_context().exit(Ambiguous.exit_code)


@click.command()
@as_json
@click.pass_obj
def owners(face: Face, as_json: bool) -> None:
    """List the owner records: which host owns each VM, under which fencing token, and who works on it.

    A VM gets its record with its first move or recovery.
    """

    async def work(nova: NovaCron) -> list[Lease]:
        return await Ownership(nova).owners()

    found = face.run(work)
    if as_json:
        show.json_line({"owners": [lease.model_dump(mode="json") for lease in found]})
    else:
        rows = [(lease.vm, lease.host, str(lease.token), _held(lease), lease.uuid) for lease in found]
        show.table(["VM", "OWNER", "TOKEN", "HELD BY", "UUID"], rows)


def _held(lease: Lease) -> str:
    if not lease.operation:
        return "-"
    until = datetime.fromtimestamp(lease.expires, UTC).strftime("%H:%M:%S UTC")
    return f"{lease.operation}, until {until}"


def _schedule(face: Face, every: timedelta | None, as_json: bool) -> None:
    async def work(nova: NovaCron) -> str:
        keeper = Ownership(nova)
        return await (keeper.reconcile_every(every) if every is not None else keeper.reconcile_no_more())

    name = face.run(work)
    if as_json:
        show.json_line({"schedule": name, "every_seconds": every.total_seconds() if every is not None else None})
    else:
        click.echo(f"schedule {name}: {f'every {every}' if every is not None else 'deleted'}")


def _pace(text: str) -> timedelta:
    found = re.fullmatch(r"([0-9]{1,6})([smhd])", text)
    pace = timedelta(seconds=int(found[1]) * _UNITS[found[2]]) if found else None
    if pace is None or not _SHORTEST <= pace <= _LONGEST:
        raise InvalidInput(f"every: got {text!r}", "Give a number and a unit, 1m to 7d, such as 10m.")
    return pace


def _tell(report: ReconcileReport) -> None:
    click.echo(f"{report.site}: {report.hosts} hosts, {report.vms} VMs, {report.leases} owner records")
    for host, why in sorted(report.silent.items()):
        click.echo(f"  silent: {host} ({why})")
    for host in report.welcomed:
        click.echo(f"  {host} may take VMs again")
    for host, why in sorted(report.unwelcome.items()):
        click.echo(f"  {host} takes no VM: {why}")
    for each in report.told:
        click.echo(f"  {each.vm}: {each.why}: {each.result}{f' ({each.said})' if each.said else ''}")
    if report.left:
        click.echo(f"  {report.left} more VMs wait for the next run")
    if not (report.told or report.silent or report.unwelcome):
        click.echo("  all as it should be")
