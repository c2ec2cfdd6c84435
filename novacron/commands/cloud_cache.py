"""cloud cache: what a place keeps of VMs that moved there, so that the next one of the same base sends little."""

from __future__ import annotations

from typing import Any

import click
from pydantic import ValidationError

from models.cloud_cache import CacheRequest
from novacron import show, show_clouds
from novacron.clouds import Clouds
from novacron.commands.base import Commands, Face, as_json
from novacron.errors import InvalidInput
from workflows.request import complaints

_EXAMPLE = '{"place": "aws:eu-west-1"}'


@click.group(cls=Commands)
def cache() -> None:
    """Disks that a cloud keeps as bases for other VMs: what there is, and its removal."""


@cache.command("list")
@click.argument("place")
@as_json
@click.pass_obj
def list_(face: Face, place: str, as_json: bool) -> None:
    """List what PLACE, such as aws:eu-west-1, keeps: what each base holds, and saved in the days it is kept for."""
    _look(face, as_json, place=place)


@cache.command()
@click.argument("place")
@click.option(
    "--everything",
    is_flag=True,
    help="All that no move uses right now. The next VM of a base is sent whole then, and may become one.",
)
@as_json
@click.pass_obj
def prune(face: Face, place: str, everything: bool, as_json: bool) -> None:
    """Remove what PLACE may not keep by the bounds of the control worker's settings (most_gib, days), and entries whose
    disk is gone. Moves do this too, when they keep a disk."""
    _look(face, as_json, place=place, action="prune", everything=everything)


def _look(face: Face, as_json: bool, **wishes: Any) -> None:
    try:
        wanted = CacheRequest.model_validate(wishes)
    except ValidationError as error:
        raise InvalidInput(complaints(error, CacheRequest, _EXAMPLE)) from None
    report = face.run(lambda nova: Clouds(nova).cache(wanted))
    if as_json:
        show.json_line(report.model_dump(mode="json"))
    else:
        show_clouds.cache(report)
