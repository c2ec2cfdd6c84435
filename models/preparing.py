"""What was found in a guest's disk image, what was changed in it for its new home, and what stands in the way."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from models.base import Model
from models.clouds import Cloud, DiskFormat, Firmware

Line = Annotated[str, StringConstraints(max_length=500)]
"""One line, for people. Text that came out of a guest is cut to it."""


class PrepareRequest(Model):
    image: Annotated[str, StringConstraints(pattern=r"^/[^\x00]{0,4094}$")]
    """The disk the guest boots from. Not open anywhere, and never written."""
    format: DiskFormat
    """Told, never guessed: a guest can write any header into its disk."""
    target: Cloud
    copy_to: Annotated[str, StringConstraints(pattern=r"^(/[^\x00]{0,4094})?$")] = ""
    """Where the prepared copy appears, in the same format, when it is whole. Empty: only say what would be changed."""
    overlay: bool = False
    """The copy is a qcow2 over the image and holds only what is changed: the image must not change while it is used."""
    dhcp: bool = False
    """Addresses that are set by hand give way to DHCP. Else they are refused: nobody would reach the guest by them."""


class Found(Model):
    what: Line
    """`kernel 6.1.0-18-amd64`, `root file system vda2, ext4`."""


class Change(Model):
    rule: Line
    path: Annotated[str, StringConstraints(max_length=1000)]
    """The file in the guest, or what stands for it: a program's name for what a program regenerated."""
    before: Line
    after: Line


class Refusal(Model):
    rule: Line
    why: Line
    remedy: Line


State = Literal["ready", "to be changed", "prepared", "refused"]
"""ready: nothing to change, so no copy was made. to be changed: it was only looked at."""


class PrepareReport(Model):
    target: Cloud
    state: State
    firmware: Annotated[tuple[Firmware, ...], Field(max_length=2)] = ()
    """What the disk can be booted by."""
    found: Annotated[tuple[Found, ...], Field(max_length=200)] = ()
    changes: Annotated[tuple[Change, ...], Field(max_length=500)] = ()
    refusals: Annotated[tuple[Refusal, ...], Field(max_length=100)] = ()
    """Not empty: nothing was changed, and nothing was made."""
