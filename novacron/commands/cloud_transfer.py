"""cloud transfer: an instance of one cloud moves to another."""

from __future__ import annotations

from typing import Any

import click
from pydantic import ValidationError

from models.cloud_move import CloudStanding
from models.cloud_transfer import CloudTransferRequest, TransferPlan
from novacron import show, show_clouds
from novacron.client import NovaCron
from novacron.clouds import Clouds
from novacron.commands import cloud_options
from novacron.commands.base import Face
from novacron.commands.cloud import waits, watched
from novacron.errors import InvalidInput, Refused
from workflows.request import complaints

_EXAMPLE = '{"vm": "web", "source": "aws:eu-west-1", "to": "azure:westeurope", "size": "Standard_B2s"}'


@click.command("transfer")
@click.argument("vm")
@click.option("--from", "source", required=True, metavar="PLACE", help="Where it runs, such as aws:eu-west-1.")
@click.option("--to", required=True, metavar="PLACE", help="Where it is to run, such as azure:westeurope.")
@click.option("--instance", default="", metavar="ID", help="Default: the one instance there of the name VM.")
@cloud_options.into()
@click.option(
    "--firmware",
    type=click.Choice(["bios", "uefi"]),
    default="bios",
    show_default=True,
    help="How the guest boots: a cloud does not tell.",
)
@click.option(
    "--read-back/--no-read-back",
    default=True,
    show_default=True,
    help="Read what was written from the new cloud again, and compare it: proof, for about as much time again and that "
    "cloud's outgoing traffic. Without, the checksums of both clouds have to do.",
)
@cloud_options.how(
    "docs/workflows/move-between-clouds.md",
    mode="warm: brought across while it runs, in rounds; short downtime, more bytes. cold: stopped first; one copy. "
    "auto: warm where both clouds can.",
    kept="Keep the old instance, stopped, to roll back to.",
    then="What becomes of the old instance after that; remove: it is terminated.",
)
@click.pass_obj
def transfer(face: Face, /, vm: str, groups: tuple[str, ...], detach: bool, as_json: bool, **wishes: Any) -> None:
    """Move VM from one cloud to another. Returns when it runs there (the old instance is kept, stopped), or has failed.

    Exits and waits as `cloud move` does; status, cut-over, test, cancel, roll-back and let-go are the same commands.
    """
    wanted = _request(vm, groups, wishes)
    if wanted.dry_run:
        _plan(face, wanted, as_json)
        return

    async def work(nova: NovaCron) -> CloudStanding:
        return await watched(await Clouds(nova).transfer(wanted), detach, as_json)

    seen = face.run(work)
    if as_json:
        show.json_line(seen.model_dump(mode="json"))
    elif seen.stage in ("kept", "done"):
        show_clouds.arrived(vm, seen)
    waits(seen, as_json)


def _request(vm: str, groups: tuple[str, ...], wishes: dict[str, Any]) -> CloudTransferRequest:
    network = {"zone": wishes.pop("zone"), "subnet": wishes.pop("subnet"), "security_groups": groups}
    try:
        return CloudTransferRequest.model_validate({"vm": vm, "network": network, **wishes})
    except ValidationError as error:
        raise InvalidInput(complaints(error, CloudTransferRequest, _EXAMPLE)) from None


def _plan(face: Face, wanted: CloudTransferRequest, as_json: bool) -> None:
    async def work(nova: NovaCron) -> TransferPlan:
        return await Clouds(nova).plan_transfer(wanted)

    made = face.run(work)
    if as_json:
        show.json_line(made.model_dump(mode="json"))
    else:
        show_clouds.plan(made)
    if not made.ok:
        click.get_current_context().exit(Refused.exit_code)
