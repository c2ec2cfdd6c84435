"""Orders to the host that runs a move, while it runs."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from models.base import Count, MigrationId, Model
from models.decisions import Short
from models.migration import MigrationPolicy, VmRef


class SteerMove(Model):
    """What is wanted of a running move from now on; run on the source's host."""

    migration_id: MigrationId
    number: Annotated[int, Field(ge=1)]
    """Counts the wishes of one workflow: an older one never undoes a newer one."""
    policy: MigrationPolicy
    """The whole policy as it stands now."""
    held_until: Annotated[float, Field(ge=0)] = 0
    """Unix time up to which nothing is to cross the link; 0: the move goes on."""
    vm: VmRef | None = None
    """With the token of the operation that wants it."""


class Steered(Model):
    """What the move step answered."""

    number: Count
    answer: Short
    refused: bool = False
