"""Which VMs of a site look wrong, from what hosts report and the records say. Pure, and cheap: RecoverVm looks closely.

A VM that is just being moved may look wrong too: its lock keeps RecoverVm away from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from models.host import SiteReport, VmReport, VmSighting
from models.lease import Lease
from models.recovery import DeadRun
from workflows.site import verdict
from workflows.site.welcome import lives


@dataclass(frozen=True)
class Suspect:
    vm: str
    why: str


def suspects(site: SiteReport, leases: Mapping[str, Lease], dead: Sequence[DeadRun], now: float) -> list[Suspect]:
    """One for each VM, by name. `now`: Unix time, for leases that were not released."""
    found: dict[str, str] = {}
    alive: dict[str, list[tuple[str, VmReport]]] = {}
    for host in site.hosts:
        for vm in host.vms:
            if lives(host.host, vm):
                alive.setdefault(vm.uuid, []).append((host.host, vm))
    for copies in alive.values():
        vm = copies[0][1]
        if len(copies) > 1:
            found[vm.name] = f"lives on {' and '.join(sorted(host for host, _ in copies))}"
        elif verdict.presence(VmSighting(host=copies[0][0], present=True, vm=vm)) == "half":
            found[vm.name] = f"in post-copy on {copies[0][0]}, its other half nowhere"
    for uuid, lease in leases.items():
        copies = alive.get(uuid, [])
        if len(copies) == 1 and copies[0][0] != lease.host:
            found.setdefault(lease.vm, f"runs on {copies[0][0]}, and its record names {lease.host}")
        elif lease.operation and lease.expires < now:
            found.setdefault(lease.vm, f"operation {lease.operation} never released it")
    for run in dead:
        found.setdefault(run.vm, f"run {run.run_id} ended as {run.status.lower()}")
    return [Suspect(vm, why) for vm, why in sorted(found.items())]
