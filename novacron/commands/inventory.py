"""hosts, vm list: what is there."""

from __future__ import annotations

import click

from novacron import show
from novacron.commands.base import Commands, Face, as_json


@click.command()
@as_json
@click.pass_obj
def hosts(face: Face, as_json: bool) -> None:
    """List the site's hosts; silent ones with the reason."""
    report = face.run(lambda nova: nova.hosts())
    if as_json:
        show.json_line(report.model_dump(mode="json"))
    else:
        show.hosts(report)


@click.group(cls=Commands)
def vm() -> None:
    """Virtual machines of the site."""


@vm.command("list")
@as_json
@click.pass_obj
def vm_list(face: Face, as_json: bool) -> None:
    """List VMs with their hosts."""
    report = face.run(lambda nova: nova.hosts())
    if as_json:
        found = [{"host": host.host, **vm.model_dump(mode="json")} for host in report.hosts for vm in host.vms]
        show.json_line({"vms": found, "silent": report.silent})
    else:
        show.vms(report)
