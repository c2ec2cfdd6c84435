"""image prepare: make a copy of a guest's disk image ready for another place's devices."""

from __future__ import annotations

from pathlib import Path
from typing import cast, get_args

import click

from clouds.errors import CloudError
from clouds.preparing.prepare import WRITABLE, prepare
from models.clouds import Cloud, DiskFormat
from models.preparing import PrepareReport, PrepareRequest
from novacron import show
from novacron.commands.base import as_json
from novacron.commands.image import ImageFailed
from novacron.errors import InvalidInput, Refused

_SAID = {
    "ready": "ready for {0} as it is: nothing was changed, and no copy was made",
    "to be changed": "would be made ready for {0} so; nothing was changed",
    "prepared": "made ready for {0}; the image itself is as it was",
    "refused": "cannot be made ready for {0}; nothing was changed",
}


@click.command("prepare")
@click.argument("source", metavar="IMAGE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--for", "target", required=True, type=click.Choice(get_args(Cloud)), help="Where it is to run.")
@click.option("--to", "copy", type=click.Path(dir_okay=False, path_type=Path), help="The copy to make; not there yet.")
@click.option("--format", "format", type=click.Choice(WRITABLE), default="qcow2", show_default=True, help="Of both.")
@click.option("--dhcp", is_flag=True, help="Addresses set by hand give way to DHCP; else they are refused.")
@click.option("--dry-run", is_flag=True, help="Only look, and say what would be changed.")
@as_json
def prepare_image(
    source: Path, target: str, copy: Path | None, format: str, dhcp: bool, dry_run: bool, as_json: bool
) -> None:
    """Make a copy of IMAGE, the disk that a Linux guest boots from, ready for another place's devices.

    The guest is shut off. Drivers come into its initramfs, its file systems are mounted by UUID, its network asks DHCP,
    the serial console is set, cloud-init is told where to ask. IMAGE itself is never written. What cannot be prepared
    is refused with the reason.

    \b
    novacron image prepare web.qcow2 --for aws --dry-run
    novacron image prepare web.qcow2 --for aws --to web-aws.qcow2
    """
    if (copy is None) != dry_run:
        raise InvalidInput("either --to FILE or --dry-run: the image itself is never written", "Say one of the two.")
    request = PrepareRequest(
        image=str(source.absolute()),
        format=cast(DiskFormat, format),
        target=cast(Cloud, target),
        copy_to=str(copy.absolute()) if copy else "",
        dhcp=dhcp,
    )
    try:
        report = prepare(request)
    except CloudError as error:
        raise ImageFailed(error.what, error.remedy) from error
    except OSError as error:
        raise ImageFailed(str(error)) from error
    if as_json:
        show.json_line(report.model_dump(mode="json"))
    else:
        click.echo("\n".join(lines(source, report)))
    if report.state == "refused":
        click.get_current_context().exit(Refused.exit_code)


def lines(source: Path, report: PrepareReport) -> list[str]:
    """A report for people."""
    said = [f"found: {each.what}" for each in report.found]
    said += [f"boots by {' and '.join(report.firmware)}"] if report.firmware else []
    said += [f"{each.rule}: {each.path}: {each.before} -> {each.after}" for each in report.changes]
    said += [f"refused, {each.rule}: {each.why}. {each.remedy}" for each in report.refusals]
    return [*said, f"{source} {_SAID[report.state].format(report.target)}"]
