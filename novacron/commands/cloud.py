"""cloud: which clouds there are, their sizes, and VMs that move there and come home. Between two: cloud_transfer."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import click
from pydantic import ValidationError

from models.cloud_bring import BringPlan, CloudBringRequest
from models.cloud_move import CloudMoveRequest, CloudPlan, CloudsAnswer, CloudStanding, TestCutOver
from novacron import show, show_clouds
from novacron.client import NovaCron, check_name
from novacron.clouds import CloudMove, Clouds, Steerable
from novacron.commands import cloud_cache, cloud_options
from novacron.commands.base import Commands, Face, as_json
from novacron.errors import Cancelled, InvalidInput, MigrationFailed, Refused
from workflows.request import complaints

_BRING_EXAMPLE = '{"vm": "web", "source": "aws:eu-west-1", "to": "host-b"}'
_TEST_EXAMPLE = '{"network": {"subnet": "subnet-1", "security_groups": ["sg-1"]}}'
_EXAMPLE = '{"vm": "web", "to": "aws:eu-west-1", "size": "t3.medium"}'


@click.group(cls=Commands)
def cloud() -> None:
    """Clouds that VMs can move to, between, and come home from."""


@cloud.command("list")
@as_json
@click.pass_obj
def list_(face: Face, as_json: bool) -> None:
    """List the cloud accounts in the control worker's settings, and what each can do."""
    answer = face.run(lambda nova: _list(nova, None))
    if as_json:
        show.json_line({"places": [each.model_dump(mode="json") for each in answer.places]})
    else:
        show_clouds.places(answer)


@cloud.command()
@click.argument("place")
@as_json
@click.pass_obj
def sizes(face: Face, place: str, as_json: bool) -> None:
    """List the instance sizes of PLACE, such as aws:eu-west-1, with prices of the dated list."""
    answer = face.run(lambda nova: _list(nova, place))
    assert answer.sizes is not None
    if as_json:
        show.json_line(answer.sizes.model_dump(mode="json"))
    else:
        show_clouds.sizes(answer.sizes)


@cloud.command()
@click.argument("vm")
@click.option("--to", required=True, metavar="PLACE", help="Cloud and region, such as aws:eu-west-1.")
@click.option("--from", "source", metavar="HOST", help="Host that has the VM. Default: all hosts are asked.")
@cloud_options.into()
@click.option(
    "--stop-within",
    type=float,
    default=120,
    show_default=True,
    metavar="SECONDS",
    help="For the guest to shut down at the cut-over. One that does not is not cut over.",
)
@click.option("--cut-power", is_flag=True, help="Cut the power of a guest that does not shut down in time.")
@cloud_options.how(
    "docs/workflows/move-to-cloud.md",
    mode="warm: copied while it runs, in rounds; short downtime, more bytes. cold: shut down first; one copy. auto: "
    "warm where it can be.",
    kept="Keep the source, shut off, to roll back to.",
    then="What becomes of the source's definition and disks after that.",
)
@click.option(
    "--cache",
    type=click.Choice(["on", "read", "off"]),
    default="on",
    show_default=True,
    help="Where the place keeps bases: on: start from one, and leave one behind (it costs storage, and holds what the "
    "VM's disks hold). read: leave none. off: neither.",
)
@click.pass_obj
def move(face: Face, /, vm: str, groups: tuple[str, ...], detach: bool, as_json: bool, **wishes: Any) -> None:
    """Move VM to a cloud. Returns when it runs there (the source is kept for a while), or has failed.

    Exits 6 for a dry run with blockers, 1 when a cut-over failed and was undone: the move then waits for
    `novacron cloud cut-over VM`, and what was copied stays.
    """
    wanted = _request(vm, groups, wishes)
    if wanted.dry_run:
        _plan(face, wanted, as_json)
        return

    async def work(nova: NovaCron) -> CloudStanding:
        return await watched(await Clouds(nova).move(wanted), detach, as_json)

    seen = face.run(work)
    if as_json:
        show.json_line(seen.model_dump(mode="json"))
    elif seen.stage in ("kept", "done"):
        show_clouds.arrived(vm, seen)
    waits(seen, as_json)


@cloud.command()
@click.argument("vm")
@click.option("--from", "source", required=True, metavar="PLACE", help="Cloud and region, such as aws:eu-west-1.")
@click.option("--to", required=True, metavar="HOST", help="Host that gets VM.")
@click.option("--instance", default="", metavar="ID", help="Default: the one instance there of the name VM.")
@click.option("--folder", default="/var/lib/libvirt/images", show_default=True, help="Where the images go on the host.")
@click.option("--memory", "memory_mib", type=int, metavar="MIB", help="Of a host without a definition of VM.")
@click.option("--vcpus", type=int, metavar="NUMBER", help="Likewise. Default of both: the instance's size.")
@click.option("--firmware", type=click.Choice(["bios", "uefi"]), default="bios", show_default=True, help="Likewise.")
@click.option("--network", metavar="NAME", help="Likewise: libvirt's network. Default: no network interface.")
@click.option("--bridge", metavar="NAME", help="Likewise, instead of a network.")
@click.option("--autostart", is_flag=True, help="libvirt starts VM with its host from then on.")
@click.option(
    "--stop-within",
    type=float,
    default=120,
    show_default=True,
    metavar="SECONDS",
    help="For the guest to shut down on the host when it is rolled back; then its power is cut.",
)
@cloud_options.how(
    "docs/workflows/move-from-cloud.md",
    mode="warm: brought while it runs, in rounds. cold: stopped first; one copy. auto: warm where it can be.",
    kept="Keep the instance, stopped, to roll back to.",
    then="What becomes of the instance after that; remove: it is terminated.",
)
@click.pass_obj
def bring(face: Face, /, vm: str, detach: bool, as_json: bool, **wishes: Any) -> None:
    """Bring VM from a cloud to a host. Returns when it runs there (the instance is kept, stopped), or has failed.

    Exits and waits as `cloud move` does; status, cut-over, cancel, roll-back and let-go are the same commands.
    """
    wanted = _bring_request(vm, wishes)
    if wanted.dry_run:
        _plan_bringing(face, wanted, as_json)
        return

    async def work(nova: NovaCron) -> CloudStanding:
        return await watched(await Clouds(nova).bring(wanted), detach, as_json)

    seen = face.run(work)
    if as_json:
        show.json_line(seen.model_dump(mode="json"))
    elif seen.stage in ("kept", "done"):
        show_clouds.came_home(vm, seen)
    waits(seen, as_json)


@cloud.command()
@click.argument("vm")
@as_json
@click.pass_obj
def status(face: Face, vm: str, as_json: bool) -> None:
    """Show how the move of VM stands: stage, rounds, where it runs, how long its source is kept."""
    check_name("vm", vm)
    seen = face.run(lambda nova: Clouds(nova).at(vm).standing())
    if as_json:
        show.json_line(seen.model_dump(mode="json"))
    else:
        show_clouds.standing(seen, set())
        if seen.why:
            click.echo(seen.why)


@cloud.command("cut-over")
@click.argument("vm")
@as_json
@click.pass_obj
def cut_over(face: Face, vm: str, as_json: bool) -> None:
    """Cut a waiting move over now, after one more round. Also after a cut-over that failed."""
    _tell(face, vm, as_json, lambda move: move.cut_over_now())


@cloud.command("test")
@click.argument("vm")
@click.option("--subnet", required=True, metavar="ID", help="One from which nobody else is reached.")
@click.option("--security-group", "groups", multiple=True, required=True, metavar="ID", help="May be given again.")
@as_json
@click.pass_obj
def test_(face: Face, vm: str, subnet: str, groups: tuple[str, ...], as_json: bool) -> None:
    """Boot an isolated copy of a move that waits, check it and terminate it. VM runs on at its source."""
    try:
        wish = TestCutOver.model_validate({"network": {"subnet": subnet, "security_groups": groups}})
    except ValidationError as error:
        raise InvalidInput(complaints(error, TestCutOver, _TEST_EXAMPLE)) from None
    _tell(face, vm, as_json, lambda move: move.test_cut_over(wish))


@cloud.command("roll-back")
@click.argument("vm")
@click.option("--reason", default="", help="Kept in the history.")
@as_json
@click.pass_obj
def roll_back(face: Face, vm: str, reason: str, as_json: bool) -> None:
    """Stop the instance and let VM run at its source again, as it was at the cut-over.

    What the instance wrote since stays on its disks, stopped: it does not come along.
    """
    _tell(face, vm, as_json, lambda move: move.roll_back(reason))


@cloud.command("let-go")
@click.argument("vm")
@as_json
@click.pass_obj
def let_go(face: Face, vm: str, as_json: bool) -> None:
    """Do not keep the source of VM any longer; --then of the move says what becomes of it."""
    _tell(face, vm, as_json, lambda move: move.let_go())


@cloud.command()
@click.argument("vm")
@click.option("--reason", default="", help="Kept in the history.")
@as_json
@click.pass_obj
def cancel(face: Face, vm: str, reason: str, as_json: bool) -> None:
    """Give a move up that has not been cut over: VM runs on at its source, and what was copied is removed."""
    _tell(face, vm, as_json, lambda move: move.cancel(reason))


cloud.add_command(cloud_cache.cache)


def _request(vm: str, groups: tuple[str, ...], wishes: dict[str, Any]) -> CloudMoveRequest:
    network = {"zone": wishes.pop("zone"), "subnet": wishes.pop("subnet"), "security_groups": groups}
    try:
        return CloudMoveRequest.model_validate({"vm": vm, "network": network, **wishes})
    except ValidationError as error:
        raise InvalidInput(complaints(error, CloudMoveRequest, _EXAMPLE)) from None


def _bring_request(vm: str, wishes: dict[str, Any]) -> CloudBringRequest:
    names = ("memory_mib", "vcpus", "firmware", "network", "bridge")
    hardware = {name: wishes.pop(name) for name in names}
    try:
        return CloudBringRequest.model_validate({"vm": vm, "hardware": hardware, **wishes})
    except ValidationError as error:
        raise InvalidInput(complaints(error, CloudBringRequest, _BRING_EXAMPLE)) from None


def waits(seen: CloudStanding, as_json: bool) -> None:
    """A cut-over failed and was undone: people say how to go on."""
    if seen.why and not as_json:
        raise MigrationFailed(seen.why, "The move waits: `novacron cloud cut-over` or `cloud cancel`.")
    if seen.why:
        click.get_current_context().exit(MigrationFailed.exit_code)


async def _list(nova: NovaCron, place: str | None) -> CloudsAnswer:
    return await Clouds(nova).list(place)


def _plan(face: Face, wanted: CloudMoveRequest, as_json: bool) -> None:
    async def work(nova: NovaCron) -> CloudPlan:
        return await Clouds(nova).plan(wanted)

    made = face.run(work)
    if as_json:
        show.json_line(made.model_dump(mode="json"))
    else:
        show_clouds.plan(made)
    if not made.ok:
        click.get_current_context().exit(Refused.exit_code)


def _plan_bringing(face: Face, wanted: CloudBringRequest, as_json: bool) -> None:
    async def work(nova: NovaCron) -> BringPlan:
        return await Clouds(nova).plan_bringing(wanted)

    made = face.run(work)
    if as_json:
        show.json_line(made.model_dump(mode="json"))
    else:
        show_clouds.bring_plan(made)
    if not made.ok:
        click.get_current_context().exit(Refused.exit_code)


async def watched(move: Steerable, detach: bool, as_json: bool) -> CloudStanding:
    """Until it rests. Raises how it failed."""
    if detach:
        return await move.standing()
    seen, told = CloudStanding(), set[str]()
    async for seen in move.follow():
        if not as_json:
            show_clouds.standing(seen, told)
        if seen.stage == "waiting" and not seen.why:
            return seen
    if seen.stage not in ("kept", "done") and not seen.why:
        await move.wait()
        raise Cancelled(f"{move.id} has ended while it was {seen.stage}")
    return seen


def _tell(face: Face, vm: str, as_json: bool, order: Callable[[CloudMove], Coroutine[Any, Any, str]]) -> None:
    check_name("vm", vm)
    answer = face.run(lambda nova: order(Clouds(nova).at(vm)))
    if as_json:
        show.json_line({"vm": vm, "answer": answer})
    else:
        click.echo(answer)
