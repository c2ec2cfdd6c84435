"""lab: libvirt hosts, Temporal and workers on this one machine, to try things on (root)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import click

from novacron import show
from novacron.commands.base import Commands, as_json
from novacron.errors import LabFailed
from workflows import details

if TYPE_CHECKING:
    from workers.lab.lab import Lab, LabStatus
    from workers.lab.link import LinkSpec

T = TypeVar("T")

_rate = click.option("--link", "rate", metavar="RATE", help="Rate of each host's link: 100mbit, 2.5gbit, unlimited.")
_delay = click.option("--delay", metavar="TIME", help="Delay one way: 40ms. It and loss take a slower, userspace wire.")
_loss = click.option("--loss", metavar="PERCENT", help="Packets lost: 0.1%.")


@click.group(cls=Commands)
def lab() -> None:
    """Run real libvirt hosts, Temporal and the workers on this machine. Needs root."""


@lab.command()
@click.option("--hosts", type=click.IntRange(1, 4), default=2, show_default=True, help="Hosts at least to have.")
@_rate
@_delay
@_loss
@click.option(
    "--prometheus", is_flag=True, help="Also Prometheus with the alerts; its page has targets, alerts, figures."
)
@as_json
def up(hosts: int, rate: str | None, delay: str | None, loss: str | None, prometheus: bool, as_json: bool) -> None:
    """Start the lab, or mend one that is partly there."""
    with _lab() as one:
        wanted = _spec(one, rate, delay, loss) if rate or delay or loss else None
        _status(one.up(hosts=hosts, link=wanted, prometheus=prometheus), as_json)


@lab.command()
@as_json
def status(as_json: bool) -> None:
    """Show what runs."""
    with _lab() as one:
        _status(one.status(), as_json)


@lab.command()
@click.option("--purge", is_flag=True, help="Remove logs and the workflows' history too.")
@as_json
def down(purge: bool, as_json: bool) -> None:
    """End every process and namespace of the lab."""
    with _lab() as one:
        one.down(purge=purge)
    _say({"up": False}, "the lab is down", as_json)


@lab.command()
@_rate
@_delay
@_loss
@as_json
def link(rate: str | None, delay: str | None, loss: str | None, as_json: bool) -> None:
    """Change the links while the lab runs: novacron lab link --link 100mbit --delay 40ms. What is not named stays."""
    with _lab() as one:
        wanted = _spec(one, rate, delay, loss)
        one.link(wanted)
    _say({"link": wanted.model_dump(mode="json")}, f"links: {wanted}", as_json)


@lab.command()
@click.argument("host", required=False)
@as_json
def cut(host: str | None, as_json: bool) -> None:
    """Cut the link of HOST, or of all: frames vanish, carrier stays."""
    with _lab() as one:
        one.cut(host)
    _say({"cut": host or "all"}, f"cut: {host or 'all links'}", as_json)


@lab.command()
@click.argument("host", required=False)
@as_json
def heal(host: str | None, as_json: bool) -> None:
    """Undo a cut."""
    with _lab() as one:
        one.heal(host)
    _say({"healed": host or "all"}, f"healed: {host or 'all links'}", as_json)


@lab.group(cls=Commands)
def guest() -> None:
    """Small real guests that count, dirty memory and beat."""


@guest.command()
@click.argument("name")
@click.option("--host", default="host-a", show_default=True, help="Where to boot it.")
@click.option("--memory", default=512, show_default=True, metavar="MIB", help="Guest memory in MiB.")
@click.option("--fill", default=0, show_default=True, metavar="MIB", help="Memory filled with real content, in MiB.")
@click.option("--dirty", default=0, show_default=True, metavar="MIB", help="Memory changed, in MiB a second.")
@as_json
def boot(name: str, host: str, memory: int, fill: int, dirty: int, as_json: bool) -> None:
    """Boot guest NAME and wait for its heartbeat."""
    with _lab() as one:
        booted = one.boot_guest(name, host=host, memory_mib=memory, fill=fill, dirty=dirty)
    _say(booted.model_dump(mode="json"), f"{name} beats on {host} ({booted.accelerator}, {memory} MiB)", as_json)


@contextmanager
def _lab() -> Iterator[Lab]:
    """The lab of this machine; its errors as ours."""
    from workers.lab.errors import LabError
    from workers.lab.lab import Lab

    try:
        yield Lab()
    except LabError as error:
        raise LabFailed(str(error), "") from error


def _spec(one: Lab, rate: str | None, delay: str | None, loss: str | None) -> LinkSpec:
    from workers.lab.link import LinkSpec

    return LinkSpec.parse(rate, delay, loss, base=one.status().link)


def _status(found: LabStatus, as_json: bool) -> None:
    if as_json:
        show.json_line(found.model_dump(mode="json"))
        return
    click.echo(f"lab {found.name}: {'up' if found.up else 'not up'}; link {found.link}")
    click.echo(f"Temporal {found.temporal}, UI {found.ui}")
    if found.prometheus:
        click.echo(f"Prometheus {found.prometheus}")
    click.echo(f"TEMPORAL_CONFIG_FILE={found.profile}")
    for host in found.hosts:
        state = ("up" if host.up else "down") + (", link cut" if host.cut else "")
        traffic = f"sent {details.size(host.tx_bytes)}, got {details.size(host.rx_bytes)}"
        click.echo(f"{host.name}: {state}; {host.address}; {traffic}; guests: {', '.join(host.guests) or 'none'}")
    for name in (name for name, pid in found.parts.items() if pid is None):
        click.echo(f"not running: {name} (`novacron lab up` starts it again)")


def _say(facts: object, sentence: str, as_json: bool) -> None:
    if as_json:
        show.json_line(facts)
    else:
        click.echo(sentence)
