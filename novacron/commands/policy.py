"""How a move is wanted, as options: shared by migrate and plan. Given ones go over the policy of the VM's class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click
from pydantic import ValidationError

from models.migration import MigrationPolicy
from novacron.errors import InvalidInput
from workflows import request

F = TypeVar("F", bound=Callable[..., Any])
_DEFAULT = MigrationPolicy()

_OPTIONS = (
    click.option(
        "--policy",
        "policy_name",
        metavar="NAME",
        help="One of the site's policies; the options below go over it. Default: the first that fits the VM's labels.",
    ),
    click.option(
        "--mode",
        metavar="NAME",
        help="pre-copy, post-copy or hybrid. post-copy switches after one pass: any guest gets across, but from "
        "then on it "
        "needs both hosts until all memory has arrived, and the move cannot be cancelled. hybrid switches only when "
        f"pre-copy does not converge. Default: {_DEFAULT.mode}.",
    ),
    click.option(
        "--disks",
        metavar="NAME",
        help="shared or copy. copy: image files that the destination does not see are copied while the VM runs; the "
        "source "
        f"keeps its own. Default: {_DEFAULT.disks}.",
    ),
    click.option(
        "--lanes",
        type=int,
        metavar="N",
        help="TCP streams under TLS, 1 to 16. More help on fast or lossy links and cost CPU. Default: "
        f"{_DEFAULT.lanes}.",
    ),
    click.option(
        "--max-lanes",
        type=int,
        metavar="N",
        help="TCP streams the data path may grow to when it measures that more carry more, 1 to 16. "
        f"Default: {_DEFAULT.max_lanes}.",
    ),
    click.option(
        "--codec",
        metavar="NAME",
        help="auto, raw, none, lz4 or zstd. auto follows the link: lz4 while the CPU is the limit, zstd while the "
        "link is. "
        f"none: known pages are left out, nothing is compressed. raw: bytes as they are. Default: {_DEFAULT.codec}.",
    ),
    click.option(
        "--page-memory",
        "page_memory_mib",
        type=int,
        metavar="MIB",
        help="Memory at each end for pages sent before, so that copies and small changes cost little on the link. At "
        f"most, and never more than the guest has; 0 is none. Default: {_DEFAULT.page_memory_mib}.",
    ),
    click.option(
        "--store/--no-store",
        default=None,
        help="Use, and fill, both hosts' content stores: a VM that comes back sends only what changed. Costs disk "
        "space "
        f"and I/O. Default: {'--store' if _DEFAULT.store else '--no-store'}.",
    ),
    click.option(
        "--store-scope",
        metavar="NAME",
        help="vm, tenant or site: whose stored pages may serve. Wider saves more, and leaks more: who may start "
        "moves can "
        f"find out whether a page is known. Default: {_DEFAULT.store_scope}.",
    ),
    click.option(
        "--tenant", metavar="NAME", help=f"Whose VM it is, for --store-scope tenant. Default: {_DEFAULT.tenant}."
    ),
    click.option(
        "--protection",
        metavar="NAME",
        help="tls or none. none: guest memory in the clear, for less CPU; refused unless the settings of both hosts "
        "trust "
        f"the migration network. Default: {_DEFAULT.protection}.",
    ),
    click.option(
        "--rdma",
        metavar="NAME",
        help="auto or never. auto: RDMA where both hosts have it and protection is none (RDMA is not encrypted). "
        f"Default: {_DEFAULT.rdma}.",
    ),
    click.option(
        "--max-downtime",
        "max_downtime_ms",
        type=int,
        metavar="MS",
        help="Longest final pause libvirt may plan for, in milliseconds. Smaller means more passes and a longer move. "
        f"Default: {_DEFAULT.max_downtime_ms}.",
    ),
    click.option(
        "--bandwidth",
        "bandwidth_mib",
        type=int,
        metavar="MIB",
        help="Upper bound for reading guest memory, in MiB a second, to spare the host. 0 is no bound. "
        f"Default: {_DEFAULT.bandwidth_mib}.",
    ),
    click.option(
        "--limit",
        "wire_mib",
        type=int,
        metavar="MIB",
        help="Upper bound on the link, in MiB a second, to spare other traffic; the move takes longer. `novacron "
        "limit` "
        f"changes it while the move runs. 0 is no bound. Default: {_DEFAULT.wire_mib}.",
    ),
    click.option(
        "--finish-within",
        type=float,
        metavar="SECONDS",
        help="Give up after this long; the VM stays where it is. Large busy VMs need more. "
        f"Default: {_DEFAULT.finish_within:g}.",
    ),
    click.option(
        "--resume-within",
        type=float,
        metavar="SECONDS",
        help="How long a lost link may stay lost before the move is given up. The guest runs on meanwhile. "
        f"Default: {_DEFAULT.resume_within:g}.",
    ),
    click.option(
        "--finish-by",
        metavar="TIME",
        help="A moment with its time zone, such as 2027-01-31T06:00+01:00: given up when it cannot be across by then. "
        "The earlier of this and --finish-within holds.",
    ),
    click.option(
        "--max-slowdown",
        type=int,
        metavar="PERCENT",
        help="CPU time the guest may lose, 0 to 99, so that a move ends that would not otherwise. 0: never. "
        f"Default: {_DEFAULT.max_slowdown}.",
    ),
    click.option(
        "--allow-post-copy/--no-post-copy",
        "allow_post_copy",
        default=None,
        help="Let pre-copy switch to post-copy when it stalls: it ends then, but from the switch on needs both hosts. "
        "Default: --no-post-copy.",
    ),
    click.option(
        "--allow-pause/--no-pause",
        "allow_pause",
        default=None,
        help="Let the guest stand still for the rest of the move when nothing else lets it end in time. "
        "Default: --no-pause.",
    ),
    click.option(
        "--priority",
        type=int,
        metavar="N",
        help=f"1 (goes first) to 5, when moves wait for each other. Default: {_DEFAULT.priority}.",
    ),
)


def policy_options(command: F) -> F:
    """Every option of a policy, in reading order."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def policy_of(wishes: dict[str, Any]) -> MigrationPolicy:
    """The options that were given; the rest is left to the site."""
    given = {name: value for name, value in wishes.items() if value is not None}
    try:
        return MigrationPolicy.model_validate(given)
    except ValidationError as error:
        raise InvalidInput(request.complaints(error), "`novacron migrate --help` has units and bounds.") from None
