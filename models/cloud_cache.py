"""What a place keeps of VMs that moved there, as bases for the next ones: orders to keep, looks, and clean-up."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, Field, field_validator, model_validator

from models.base import Count, MigrationId, Model, Name, Text
from models.cloud_move import MOST_DISKS, DiskSent, Place, known_place
from models.clouds import CloudId
from models.disks import DiskImage
from models.migration import VmRef

MOST_BASES = 500


class WeighBases(Model):
    """Before a move: what would bases of the place save of these disks?"""

    place: Place
    vm: VmRef
    disks: Annotated[tuple[DiskImage, ...], Field(min_length=1, max_length=MOST_DISKS)]


class BasesWeighed(Model):
    saved: Count | None = None
    """Bytes, about. None: it cannot be told without reading more than a few blocks."""
    reason: Text = ""


class KeepBases(Model):
    """After a cut-over: let its disks stay as bases where they are worth it, and make room for them."""

    move: MigrationId
    place: Place
    vm: VmRef
    disks: Annotated[tuple[DiskImage, ...], Field(min_length=1, max_length=MOST_DISKS)]
    sent: Annotated[tuple[DiskSent, ...], Field(min_length=1, max_length=MOST_DISKS)]


class BasesKept(Model):
    disks: Annotated[tuple[CloudId, ...], Field(max_length=MOST_DISKS)] = ()
    """The move must not remove these: the cache does."""
    reasons: Annotated[tuple[Text, ...], Field(max_length=MOST_DISKS)] = ()
    """By disk, why or why not."""
    removed: Annotated[tuple[str, ...], Field(max_length=MOST_BASES)] = ()
    """Bases that went."""


class CachedBase(Model):
    """A disk that a place keeps."""

    disk: CloudId
    name: Annotated[str, Field(max_length=128)] = ""
    """VM and disk that it was made of."""
    size: Count
    held: Count
    """Bytes that it holds, as they were sent."""
    made: AwareDatetime
    used: AwareDatetime | None = None
    uses: Count = 0
    """Disks made from it, in the days that the settings keep things for."""
    saved: Count = 0
    """Bytes that were not sent for it, in these days."""
    in_use: Count = 0
    """Moves that make a disk from it right now."""
    gone: Text = ""
    """Why it was removed, or would be."""


class CacheRequest(Model):
    """Input of the workflow novacron.CloudCache."""

    place: Annotated[str, Field(max_length=80)]
    """A Place."""
    action: Literal["list", "prune"] = "list"
    """prune: remove what the bounds of the settings do not allow, and entries whose disk is gone."""
    everything: bool = False
    """Of prune: all that no move in progress uses."""

    @field_validator("place")
    @classmethod
    def _known(cls, place: str) -> str:
        return known_place(place)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.everything and self.action != "prune":
            raise ValueError("everything goes with action 'prune', and with nothing else")
        return self


class CacheReport(Model):
    """Result of novacron.CloudCache."""

    place: Place
    scope: Name
    most_gib: Count
    days: Count
    bases: Annotated[tuple[CachedBase, ...], Field(max_length=MOST_BASES)] = ()
    """What is kept, when it ends."""
    removed: Annotated[tuple[CachedBase, ...], Field(max_length=MOST_BASES)] = ()
    held: Count = 0
    """Of `bases` together, bytes."""
