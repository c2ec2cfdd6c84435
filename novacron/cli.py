"""The command line `novacron`: the group, its commands, and how the process ends. Exit codes: see EPILOG."""

from __future__ import annotations

import os
import sys

import click

from novacron.commands import fleet, inventory, labels, moves, steer
from novacron.commands.base import Commands, Face
from novacron.commands.cloud import cloud
from novacron.commands.cloud_transfer import transfer
from novacron.commands.events import events
from novacron.commands.image import image
from novacron.commands.lab import lab
from novacron.commands.ownership import owners, reconcile, recover
from novacron.commands.plan import plan
from novacron.commands.prepare import prepare_image
from novacron.commands.prices import cloud_prices
from novacron.commands.schedule import schedule
from novacron.commands.slots import slots
from novacron.commands.store import store
from workers import traces

EPILOG = """Exit codes: 0 done; 1 failed, the VM stays where it was; 2 wrong input; 3 already moving; 4 Temporal, a
worker or the owner records do not answer; 5 not found; 6 refused by a check; 7 cancelled; 8 ambiguous, needs a human;
130 interrupted."""


@click.group(cls=Commands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--profile", metavar="NAME", help="Profile of Temporal's configuration file. Default: TEMPORAL_PROFILE.")
@click.option("--site", metavar="NAME", help="Site to work on. Default: NOVACRON_SITE, else lab.")
@click.pass_context
def cli(ctx: click.Context, profile: str | None, site: str | None) -> None:
    """Move virtual machines live between hosts, durably.

    Temporal is found as its own tools find it: TEMPORAL_* variables, then the configuration file.
    """
    ctx.obj = Face(profile, site)


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="End with one JSON line of the same facts.")
@click.option("--prometheus", is_flag=True, help="Start Prometheus in the lab too, with the alerts.")
@click.pass_context
def demo(ctx: click.Context, as_json: bool, prometheus: bool) -> None:
    """Boot a guest in the lab, move it live, and verify that it is the same one. Needs root."""
    from novacron.demo import run

    ctx.exit(run(as_json, prometheus))


_MOVES = (moves.migrate, moves.watch, moves.cancel, moves.limit, moves.start_now, moves.post_copy)
_STEER = (steer.policy, steer.pause, steer.resume, steer.explain)
_FLEET = (fleet.host, fleet.move_many, fleet.rebalance, schedule)
_SEEN = (inventory.hosts, inventory.vm, events, owners, slots)
for command in (plan, *_MOVES, *_STEER, *_FLEET, *_SEEN, cloud, recover, reconcile, image, store, lab):
    cli.add_command(command)
inventory.vm.add_command(labels.label)
image.add_command(prepare_image)
cloud.add_command(cloud_prices)
cloud.add_command(transfer)


def run(args: list[str] | None = None) -> int:
    """The command line without leaving the process; the exit code."""
    try:
        code = cli.main(args, prog_name="novacron", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return 130
    return code if isinstance(code, int) else 0


def main() -> None:
    """Leaves with os._exit: a process that used Temporal's client crashes in interpreter shutdown now and then
    (temporalio/sdk-python#300)."""
    code = 1
    try:
        code = run()
        traces.flush()
    except Exception:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
