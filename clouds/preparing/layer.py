"""A prepared guest as a layer over its image, for a move that may have to be undone: the image is never written.

A qcow2 that holds what was changed, in a folder beside the image. It is good for one cut-over: as soon as the guest
runs on its image again the layer fits no more, and is never used. The report beside it is written last, so a layer
without one is half done. What a worker that died left in the folder goes with it.

    <image>.novacron-prepared/<move>-<attempt>.qcow2   the layer; none: the image is ready as it is
    <image>.novacron-prepared/<move>-<attempt>.json    what was changed
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from clouds.errors import BadDisk
from clouds.preparing.appliance import Beat
from clouds.preparing.prepare import prepare
from models.clouds import Cloud, DiskFormat
from models.preparing import PrepareReport, PrepareRequest

SUFFIX = ".novacron-prepared"


def layer(image: str, move: str, attempt: int) -> Path:
    return folder(image) / f"{move}-{attempt}.qcow2"


def folder(image: str) -> Path:
    return Path(f"{image}{SUFFIX}")


def make(
    image: str, format: DiskFormat, target: Cloud, move: str, attempt: int, beat: Beat, *, dhcp: bool = False
) -> PrepareReport:
    """Once for each attempt; other attempts' layers go. Nothing is left of a guest that is refused. Raises BadDisk and
    MissingPackage."""
    path = layer(image, move, attempt)
    report = path.with_suffix(".json")
    if report.exists():
        return PrepareReport.model_validate_json(report.read_bytes())
    drop(image)
    folder(image).mkdir(mode=0o700)
    request = PrepareRequest(image=image, format=format, target=target, copy_to=str(path), overlay=True, dhcp=dhcp)
    made = prepare(request, beat=beat)
    if made.state == "refused":
        drop(image)
        return made
    part = path.with_suffix(".new")
    with part.open("w") as out:
        out.write(made.model_dump_json())
        out.flush()
        os.fsync(out.fileno())
    part.replace(report)
    return made


def checked(image: str, move: str, attempt: int) -> Path:
    """The layer of this attempt. Raises BadDisk when it is not there, or not whole."""
    path = layer(image, move, attempt)
    if not path.exists() or not path.with_suffix(".json").exists():
        raise BadDisk(f"{path} is gone: the prepared guest cannot be sent", "Cut over again: it is prepared anew.")
    return path


def drop(image: str) -> bool:
    """All layers of the image, whole or not. True: there were some."""
    there = folder(image).exists()
    shutil.rmtree(folder(image), ignore_errors=True)
    return there
