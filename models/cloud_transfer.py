"""An instance of one cloud moves to another: what is asked, and what each step is told and tells. Sizes in bytes."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from models.base import Count, MigrationId, Model, Name, Seconds, Text
from models.cloud_move import (
    MOST_DISKS,
    MOST_ROUNDS,
    CloudPlan,
    DiskSent,
    IntoCloudRequest,
    Place,
    RoundReport,
    known_place,
)
from models.clouds import CloudId, Firmware, Token


class CloudTransferRequest(IntoCloudRequest):
    """Input of the workflow novacron.MoveBetweenClouds."""

    source: Annotated[str, Field(max_length=80)]
    """A Place."""
    instance: Annotated[str, Field(max_length=512)] = ""
    """The provider's id; empty: the one instance there that has the VM's name."""
    firmware: Firmware = "bios"
    """How the guest boots: a cloud does not tell."""
    read_back: bool = True
    """Read what was written from the target again, and compare it with what the source gave; where the target gives
    its disks out. Costs the target's outgoing traffic and about as much time again."""

    @field_validator("source")
    @classmethod
    def _known_source(cls, source: str) -> str:
        return known_place(source)

    @model_validator(mode="after")
    def _two_places(self) -> Self:
        if self.source == self.to:
            raise ValueError("source and to are the same place: name two")
        return self


class TransferDisk(Model):
    """Bring one snapshot of the source to the target, or what changed since the one before."""

    move: MigrationId
    source: Place
    place: Place
    """The target."""
    vm: Name
    target: Name
    """What the disk is called in the move: vda."""
    snapshot: CloudId
    base_snapshot: Annotated[str, Field(max_length=512)] = ""
    """The snapshot that the target has; empty: the whole disk."""
    base: Annotated[str, Field(max_length=512)] = ""
    """The target's disk that holds it."""
    token: Token
    read_back: bool = False


class ForgetTransfer(Model):
    """The move is over: forget what was kept about its disks."""

    move: MigrationId


class TransferPlan(CloudPlan):
    """What a move between clouds would do, and what it would cost."""

    source: Place
    instance: Annotated[str, Field(max_length=512)] = ""
    volumes: Annotated[tuple[str, ...], Field(max_length=128)] = ()


class CloudTransferOutcome(Model):
    """Result of novacron.MoveBetweenClouds: the VM runs in the new cloud, or (rolled back) in the old one, and nowhere
    else."""

    vm: Name
    site: Name
    source: Place
    place: Place
    plan: TransferPlan | None = None
    """Of a dry run, which ends with it."""
    instance: Annotated[str, Field(max_length=512)] = ""
    """The one in the new cloud."""
    source_instance: Annotated[str, Field(max_length=512)] = ""
    rolled_back: bool = False
    source_terminated: bool = False
    downtime: Seconds = 0
    """From the order to stop the instance until the new one ran and was checked."""
    sent_bytes: Count = 0
    rounds: Annotated[tuple[RoundReport, ...], Field(max_length=MOST_ROUNDS)] = ()
    disks: Annotated[tuple[DiskSent, ...], Field(max_length=MOST_DISKS)] = ()
    notes: Annotated[tuple[Text, ...], Field(max_length=20)] = ()
