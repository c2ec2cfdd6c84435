"""The machine that prepares guests, without one: it writes a block of the layer, as drivers would be written."""

from __future__ import annotations

from pathlib import Path

from clouds.disks.content import BLOCK
from clouds.disks.images import make_overlay, open_image
from clouds.preparing.appliance import Beat, Kernel, nothing
from models.preparing import Change, PrepareReport, PrepareRequest, Refusal

DRIVERS = Change(rule="drivers", path="update-initramfs", before="virtio_blk", after="nvme ena")
LUKS = Refusal(rule="machine", why="vda2 is encrypted (LUKS)", remedy="Move it by hand.")
WHERE, WHAT = 3, b"drivers".ljust(BLOCK, b"\0")
"""Number of the block, and what is in it then."""


class FakeMachine:
    """`prepare` of clouds.preparing.prepare, for layers."""

    def __init__(self) -> None:
        self.refuses = self.ready = False
        self.asked: list[PrepareRequest] = []

    def __call__(self, request: PrepareRequest, kernel: Kernel | None = None, beat: Beat = nothing) -> PrepareReport:
        self.asked.append(request)
        beat()
        if self.refuses:
            return PrepareReport(target=request.target, state="refused", refusals=(LUKS,))
        if self.ready:
            return PrepareReport(target=request.target, state="ready")
        if not request.copy_to:
            return PrepareReport(target=request.target, state="to be changed", changes=(DRIVERS,))
        assert request.overlay
        part = Path(f"{request.copy_to}.part")
        part.unlink(missing_ok=True)
        make_overlay(part, request.image, request.format)
        with open_image(part, "qcow2", writable=True, backing=request.image) as disk:
            disk.write(WHERE * BLOCK, WHAT)
        part.rename(request.copy_to)
        return PrepareReport(target=request.target, state="prepared", changes=(DRIVERS,))
