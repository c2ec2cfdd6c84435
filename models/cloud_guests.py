"""A guest on its way to a cloud is made ready for it: what the steps on its host are told, and tell."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from models.base import MigrationId, Model, Text
from models.clouds import Cloud
from models.disks import DiskImage
from models.migration import VmRef
from models.preparing import PrepareReport


class LookAtGuest(Model):
    """What would have to be changed? Nothing is."""

    vm: VmRef
    image: DiskImage
    """Of the disk that the guest boots from."""
    target: Cloud
    dhcp: bool = False


class GuestForecast(Model):
    report: PrepareReport | None = None
    """None: the VM runs, and its disk is not looked at."""
    obstacle: Text = ""
    """Why no guest, or not this one, can be looked at on this host."""


class PrepareGuest(Model):
    """Prepare the guest, which is off, in a layer over its image. The image itself is never written."""

    move: MigrationId
    attempt: Annotated[int, Field(ge=1, le=10**6)]
    """Of the cut-over: the image changes between two of them, and a layer fits one."""
    vm: VmRef
    image: DiskImage
    target: Cloud
    dhcp: bool = False


class GuestPrepared(Model):
    report: PrepareReport
    layer: Annotated[int, Field(ge=0, le=10**6)] = 0
    """Attempt whose layer is to be sent; 0: the image is ready as it is."""


class DropLayers(Model):
    vm: VmRef
    image: DiskImage


class LayersDropped(Model):
    dropped: bool = False
    """There were some."""
