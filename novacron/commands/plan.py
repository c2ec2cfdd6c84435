"""plan: what a move would meet and cost; nothing is started."""

from __future__ import annotations

from typing import Any

import click

from models.migration import MigrationPolicy
from novacron import show, show_plans
from novacron.client import NovaCron, wish
from novacron.commands.base import Face, as_json
from novacron.commands.policy import policy_of, policy_options
from novacron.errors import Refused

BLOCKED = Refused.exit_code


@click.command()
@click.argument("vm")
@click.option("--to", required=True, metavar="HOST", help="Destination host.")
@click.option(
    "--from", "source", metavar="HOST", help="Host that runs the VM. Default: all hosts of the site are asked."
)
@click.option(
    "--measure/--no-measure",
    default=True,
    help="Sample the guest's dirty rate (2 s, beside the guest) and fill the link for 1.5 s. Without it: no times. "
    "Default: --measure.",
)
@policy_options
@as_json
@click.pass_obj
def plan(
    face: Face,
    /,
    vm: str,
    to: str,
    source: str | None,
    measure: bool,
    policy_name: str | None,
    as_json: bool,
    **wishes: Any,
) -> None:
    """Show what speaks against moving VM, and what the move would cost in each strategy. Nothing is started.

    Exits 6 when the move would be refused.
    """
    show_plan(face, vm, to, source, policy_of(wishes), policy_name, measure=measure, as_json=as_json)


def show_plan(
    face: Face,
    vm: str,
    to: str,
    source: str | None,
    policy: MigrationPolicy,
    policy_name: str | None,
    *,
    measure: bool = True,
    as_json: bool,
) -> None:
    wish(vm, to, source=source, policy=policy, policy_name=policy_name)

    async def work(nova: NovaCron) -> Any:
        return await nova.plan(vm, to, source=source, policy=policy, policy_name=policy_name, measure=measure)

    made = face.run(work)
    if as_json:
        show.json_line(made.model_dump(mode="json"))
    else:
        show_plans.plan(made)
    if not made.ok:
        click.get_current_context().exit(BLOCKED)
