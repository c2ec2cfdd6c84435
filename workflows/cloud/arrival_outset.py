"""Before anything starts: which instance is the VM, that no host has a live copy, what the host would make of it."""

from __future__ import annotations

from dataclasses import dataclass

from temporalio import workflow

from models import failures
from models.cloud_bring import ArrivalFacts, ArrivalQuery, BringPlan, CloudBringRequest, InstanceFacts
from models.cloud_move import owner_of
from models.clouds import Price
from models.host import VmSighting
from models.migration import VmRef
from workflows import errors, request
from workflows.calls.arrivals import ArrivalHost, SourceCloud
from workflows.calls.cloud import CloudSite
from workflows.calls.owners import Leases
from workflows.calls.site import Control, Host
from workflows.cloud import arrival_plan
from workflows.site import everyone, verdict

_EXAMPLE = '{"vm": "web", "source": "aws:eu-west-1", "to": "host-b"}'


@dataclass(frozen=True)
class Survey:
    instance: InstanceFacts
    host: ArrivalFacts
    vm: VmRef
    """With the uuid that it has had, or gets."""
    plan: BringPlan


def read(raw: object) -> CloudBringRequest:
    """The request, or ApplicationError InvalidInput."""
    return request.read_as(CloudBringRequest, raw, _EXAMPLE)


async def survey(site: str, wanted: CloudBringRequest) -> Survey:
    """Raises InvalidInput, TwoCopies, Ambiguous, HostUnavailable; what else is wrong is in the plan."""
    request.check_host(await Control(site).hosts(), "to", wanted.to)
    seen = await alive_nowhere(site, wanted.vm)
    source = SourceCloud(site, wanted.source)
    facts = await source.find(wanted.vm, wanted.instance, sizes=True)
    vm = VmRef(vm=wanted.vm, uuid=await uuid_of(site, wanted.vm, wanted.source, seen, wanted.to))
    query = ArrivalQuery(place=wanted.source, vm=vm, folder=wanted.folder)
    host = await ArrivalHost(site, wanted.to).inspect(query)
    prices: tuple[Price, ...] = ()
    if wanted.dry_run and facts.instance:
        prices = (await CloudSite(site, wanted.source).report(facts.instance.size)).prices
    return Survey(facts, host, vm, arrival_plan.plan(wanted, facts, host, prices))


def refuse(plan: BringPlan) -> None:
    """Raise what the blockers say, if there are any."""
    blockers = [finding for finding in plan.findings if finding.severity == "blocker"]
    if blockers:
        listed = "; ".join(f"[{each.id}] {each.what}. {each.remedy}" for each in blockers)
        raise errors.final(
            failures.REFUSED, f"{plan.vm} cannot come from {plan.place}, and nothing was started: {listed}"
        )


async def alive_nowhere(site: str, vm: str) -> list[VmSighting]:
    """What each host has of a VM that runs in a cloud. Raises TwoCopies when one has it alive, HostUnavailable when one
    does not say."""
    named = VmRef(vm=vm)
    hosts = await everyone.hosts_of(site, vm)
    seen = await everyone.ask(hosts, named, lambda host: Host(site, host).has(named))
    if living := [each for each in seen if verdict.alive(each)]:
        listed = "; ".join(verdict.describe(each) for each in living)
        raise errors.final(
            failures.TWO_COPIES, f"{vm}: {listed}. Nothing was started: see which copy is the VM, and end the other"
        )
    return seen


async def uuid_of(site: str, vm: str, place: str, seen: list[VmSighting], to: str = "") -> str:
    """Of a definition that is left, on the host that gets it (`to`) or on another; else of the owner record that says
    it runs at `place`; else new."""
    defined = {each.host: each.vm.uuid for each in seen if each.vm is not None}
    if to in defined:
        return defined[to]
    if len(set(defined.values())) > 1:
        listed = ", ".join(f"{host} has {uuid}" for host, uuid in sorted(defined.items()))
        raise errors.final(
            failures.AMBIGUOUS,
            f"{vm}: hosts have different VMs of this name ({listed}). Nothing was started: rename or undefine "
            f"those that are not the VM",
        )
    if defined:
        return next(iter(defined.values()))
    records, _ = await Leases(site).all()
    owned = [each.uuid for each in records.values() if each.vm == vm and each.host == owner_of(place)]
    return owned[0] if len(owned) == 1 else str(workflow.uuid4())
