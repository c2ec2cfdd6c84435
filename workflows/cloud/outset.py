"""Before anything starts: where the VM is, what it is made of, what the place offers, what speaks against it."""

from __future__ import annotations

from temporalio.exceptions import ActivityError

from models import failures
from models.cloud_cache import BasesWeighed, WeighBases
from models.cloud_move import CloudMoveRequest, CloudPlan, SourceFacts
from models.migration import VmRef
from workflows import errors, request
from workflows.calls.cloud import CloudSite, SourceHost
from workflows.calls.site import Control, Host
from workflows.cloud import estimate
from workflows.site import everyone, verdict

_EXAMPLE = '{"vm": "web", "to": "aws:eu-west-1", "size": "t3.medium"}'


def read(raw: object) -> CloudMoveRequest:
    """The request, or ApplicationError InvalidInput."""
    return request.read_as(CloudMoveRequest, raw, _EXAMPLE)


async def survey(site: str, wanted: CloudMoveRequest) -> tuple[SourceFacts, CloudPlan]:
    """Raises InvalidInput, NotFound, Ambiguous, HostUnavailable; what else is wrong is in the plan."""
    source = await _find(site, wanted)
    facts = await SourceHost(site, source).inspect(VmRef(vm=wanted.vm))
    offer = await CloudSite(site, wanted.to).report(wanted.size)
    plan = estimate.plan(wanted, facts, offer)
    if wanted.dry_run and plan.cached and plan.ok:
        plan = estimate.with_bases(plan, await _weigh(site, source, wanted, facts))
    return facts, plan


async def _weigh(site: str, source: str, wanted: CloudMoveRequest, facts: SourceFacts) -> BasesWeighed:
    """An estimate: nothing depends on it."""
    order = WeighBases(place=wanted.to, vm=facts.vm, disks=facts.disks)
    try:
        return await SourceHost(site, source).weigh_bases(order)
    except ActivityError as error:
        return BasesWeighed(reason=f"the cache was not looked at: {errors.explain(error)[1]}"[:4000])


def refuse(plan: CloudPlan) -> None:
    """Raise what the blockers say, if there are any."""
    blockers = [finding for finding in plan.findings if finding.severity == "blocker"]
    if blockers:
        listed = "; ".join(f"[{each.id}] {each.what}. {each.remedy}" for each in blockers)
        raise errors.final(
            failures.REFUSED, f"{plan.vm} cannot move to {plan.place}, and nothing was started: {listed}"
        )


async def _find(site: str, wanted: CloudMoveRequest) -> str:
    if wanted.source is not None:
        request.check_host(await Control(site).hosts(), "source", wanted.source)
        return wanted.source
    named = VmRef(vm=wanted.vm)
    seen = await everyone.ask(await everyone.hosts_of(site, wanted.vm), named, lambda host: Host(site, host).has(named))
    present = [each for each in seen if each.present]
    living = [each for each in present if verdict.alive(each)]
    if len(living) > 1 or (not living and len(present) > 1):
        listed = "; ".join(verdict.describe(each) for each in living or present)
        raise errors.final(
            failures.AMBIGUOUS, f"{wanted.vm}: {listed}. Nothing was started; `novacron recover {wanted.vm}` says more"
        )
    if not present:
        raise errors.final(
            failures.NOT_FOUND, f"vm: no host of site {site!r} has {wanted.vm!r}. `novacron vm list` shows all VMs"
        )
    return (living or present)[0].host
