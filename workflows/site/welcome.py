"""A host that was started anew, or lost its state: may it take work? Only when each VM that lives on it belongs there.

| each VM that lives there | another host has it alive | its record names | other hosts | may it? |
| --- | --- | --- | --- | --- |
| none lives there | | | | yes |
| | yes | | | no: two copies, or halves |
| | no | this host | | yes |
| | no | another host, or there is none | all answered | yes: the only copy; its record follows |
| | no | another host, or there is none | some silent | no: a silent host may run it |
"""

from __future__ import annotations

from collections.abc import Mapping

from temporalio import workflow

from models.host import HostReport, SiteReport, VmReport, VmSighting
from models.lease import Lease
from workflows.calls.owners import Leases, Survivor
from workflows.calls.site import Host
from workflows.site import verdict
from workflows.site.inventory import ask_site


def objection(host: HostReport, site: SiteReport, leases: Mapping[str, Lease]) -> str:
    """Why the host may not take work yet; empty when it may."""
    for vm in host.vms:
        if not lives(host.host, vm):
            continue
        for other in site.hosts:
            if other.host != host.host and any(each.uuid == vm.uuid and lives(other.host, each) for each in other.vms):
                return f"{vm.name} lives on it and on {other.host}"
        record = leases.get(vm.uuid)
        if site.silent and (record is None or record.host != host.host):
            named = f"its record names {record.host}" if record else "it has no owner record"
            return f"{vm.name} lives on it, {named}, and these hosts do not answer: {', '.join(sorted(site.silent))}"
    return ""


def lives(host: str, vm: VmReport) -> bool:
    return verdict.alive(VmSighting(host=host, present=True, vm=vm))


async def welcome(site: str, name: str) -> str:
    """Let the host take work if all is well; else why not. Nothing else changes. Raises ActivityError when the host or
    the store of the records does not answer."""
    report = await Host(site, name).describe()
    if not any(lives(name, vm) for vm in report.vms):
        highest = (await Leases(site).page(limit=1)).highest
    else:
        whole = await ask_site(site)
        leases, highest = await Leases(site).all()
        if why := objection(report, whole, leases):
            workflow.logger.warning("%s may not take work yet: %s", name, why)
            return why
    await Survivor(site, name).welcome(highest)
    return ""
