"""Setting things right after an operation that died: what is asked of hosts, and what is reported."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from models.base import AbsolutePath, Count, MigrationId, Model, Name, Text
from models.datapath import Role
from models.disks import DiskImage
from models.lease import OperationId, Token, Uuid


class PathSeen(Model):
    """A data path that lives on a host."""

    migration_id: MigrationId
    role: Role | None = None
    """None: its folder says nothing, so nobody knows whose it is."""
    vm: Uuid | None = None
    token: Token = 0


class PathsReport(Model):
    paths: Annotated[tuple[PathSeen, ...], Field(max_length=256)] = ()


class FindMarks(Model):
    """Which of these images lie on the host with the mark of a migration that made them?"""

    disks: Annotated[tuple[DiskImage, ...], Field(max_length=64)]


class MarksReport(Model):
    marks: Annotated[dict[AbsolutePath, MigrationId], Field(max_length=64)] = Field(default_factory=dict)
    """Image -> migration."""


class Welcome(Model):
    """The host was compared with the site's records and may take work. `floor`: the highest token given out by then."""

    floor: Token = 0


class Welcomed(Model):
    floor: Token


class RecoverRequest(Model):
    """Input of the workflow novacron.RecoverVm."""

    vm: Name
    dry_run: bool = False
    left_cloud: bool = False
    """Somebody has seen that no instance of it runs in the cloud that its record names: the record may follow the
    hosts again."""
    """Look and say what would be done; change nothing, the record neither."""


class RecoverReport(Model):
    """Result of novacron.RecoverVm: there is one copy of the VM at most, and nothing of dead operations around it."""

    vm: Name
    site: Name
    uuid: Uuid | None = None
    host: Name | None = None
    """Where the VM is."""
    state: Annotated[str, Field(max_length=32)] = ""
    token: Token = 0
    """Of this recovery; 0 in a dry run."""
    done: Annotated[tuple[Text, ...], Field(max_length=50)] = ()
    """What was repaired, or would be in a dry run; nothing: all was well."""
    notes: Annotated[tuple[Text, ...], Field(max_length=50)] = ()
    dry_run: bool = False


class ReconcileRequest(Model):
    """Input of the workflow novacron.Reconcile."""

    since_minutes: Annotated[int, Field(ge=1, le=60 * 24 * 30)] = 120
    """How far back ended runs are looked through for some that did not clean up."""
    dry_run: bool = False


class DeadQuery(Model):
    site: Name
    since_minutes: Count
    limit: Annotated[int, Field(ge=1, le=1000)] = 1000


class DeadRun(Model):
    """A run that ended without its own clean-up, or whose clean-up could not do everything."""

    vm: Name
    workflow_id: OperationId
    run_id: OperationId
    status: Annotated[str, Field(max_length=32)]


class DeadRuns(Model):
    runs: Annotated[tuple[DeadRun, ...], Field(max_length=1000)] = ()
    more: bool = False


class VmTold(Model):
    """What became of one VM that looked wrong."""

    vm: Name
    why: Text
    result: Literal["well", "repaired", "refused", "two copies", "busy", "waits", "would be asked"]
    said: Text = ""


class ReconcileReport(Model):
    """Result of novacron.Reconcile."""

    site: Name
    hosts: Count = 0
    """Hosts that answered."""
    vms: Count = 0
    leases: Count = 0
    silent: Annotated[dict[Name, Text], Field(max_length=2000)] = Field(default_factory=dict)
    welcomed: Annotated[tuple[Name, ...], Field(max_length=2000)] = ()
    """Hosts that may take work from now on."""
    unwelcome: Annotated[dict[Name, Text], Field(max_length=2000)] = Field(default_factory=dict)
    """Hosts that still may not, and why."""
    told: Annotated[tuple[VmTold, ...], Field(max_length=500)] = ()
    left: Count = 0
    """VMs that looked wrong and wait for the next run: more than one run takes on."""
