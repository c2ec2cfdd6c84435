"""Preparing a disk image: look, judge, change a copy, look again. The image itself is never written.

The copy gets its name only when a second look found nothing left to change: no half prepared image is ever seen.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from clouds.disks.images import convert, make_overlay, open_image
from clouds.errors import BadDisk
from clouds.preparing.appliance import Beat, Kernel, find_kernel, look, nothing, work
from clouds.preparing.guest import Guest
from clouds.preparing.layout import read_layout
from clouds.preparing.rules import Plan, make_plan
from clouds.preparing.steps import Step
from clouds.preparing.targets import TARGETS
from models.clouds import DiskFormat
from models.preparing import Change, Found, PrepareReport, PrepareRequest, Refusal, State

WRITABLE: tuple[DiskFormat, ...] = ("raw", "qcow2", "vhd")


def prepare(request: PrepareRequest, kernel: Kernel | None = None, beat: Beat = nothing) -> PrepareReport:
    """Raises BadDisk, and MissingPackage when something of this host's is not installed. A refusal is an answer.
    `beat` is called every second while a machine runs; what it raises ends the machine, and no copy is left."""
    if request.format not in WRITABLE:
        raise BadDisk(f"a {request.format} image cannot be changed in place", "Convert it to raw or qcow2 first.")
    image, copy = Path(request.image), Path(request.copy_to) if request.copy_to else None
    if copy and copy.exists():
        raise BadDisk(f"{copy} exists and is not overwritten", "Move it away, or choose another name.")
    kernel = kernel or find_kernel()
    guest = _look(image, request.format, kernel, beat)
    plan = make_plan(guest, TARGETS[request.target], request.dhcp)
    if plan.refused:
        return report_of(request, guest, plan, "refused")
    if not plan.steps:
        return report_of(request, guest, plan, "ready")
    if copy is None:
        return report_of(request, guest, plan, "to be changed")
    with tempfile.TemporaryDirectory(prefix=".novacron-", dir=copy.parent) as folder:
        part = Path(folder) / "disk"
        format, under = _begin(request, image, part)
        work(part, format, guest.layout, kernel, plan.steps, beat)
        left = make_plan(_look(part, format, kernel, beat, under), TARGETS[request.target], request.dhcp)
        if left.steps or left.refused:
            raise BadDisk(
                f"{image} does not stay prepared: {_left(left)}", "Something in the guest undoes it: see there."
            )
        part.chmod(image.stat().st_mode & 0o777)  # whoever may not read the one may not read the other
        with part.open("rb") as file:
            os.fsync(file.fileno())
        os.link(part, copy)  # unlike a rename it never replaces what came there meanwhile
    return report_of(request, guest, plan, "prepared")


def _begin(request: PrepareRequest, image: Path, part: Path) -> tuple[DiskFormat, str]:
    """(format of the part, what it lies over)."""
    if request.overlay:
        make_overlay(part, image, request.format)
        return "qcow2", str(image)
    convert(image, request.format, part, request.format)
    return request.format, ""


def _look(image: Path, format: DiskFormat, kernel: Kernel, beat: Beat, under: str = "") -> Guest:
    with open_image(image, format, backing=under) as disk:
        layout = read_layout(disk)
    return look(image, format, layout, kernel, beat)


def _left(plan: Plan) -> str:
    said = [f"{each.rule}: {each.why}" for each in plan.refused]
    return _line("; ".join(said + [f"{each.rule}: {each.path}, {each.before}" for each in plan.steps]), 600)


def report_of(request: PrepareRequest, guest: Guest, plan: Plan, state: State) -> PrepareReport:
    steps: Iterable[Step] = () if plan.refused else plan.steps
    return PrepareReport(
        target=request.target,
        state=state,
        firmware=guest.layout.firmware,
        found=tuple(Found(what=_line(each.what)) for each in plan.noted[:200]),
        changes=tuple(
            Change(rule=each.rule, path=_line(each.path, 1000), before=_line(each.before), after=_line(each.after))
            for each in steps
        )[:500],
        refusals=tuple(
            Refusal(rule=each.rule, why=_line(each.why), remedy=_line(each.remedy)) for each in plan.refused[:100]
        ),
    )


def _line(text: str, most: int = 500) -> str:
    """Of a guest's text what a terminal and JSON can take."""
    return "".join(char if char.isprintable() else "?" for char in text)[:most]
