"""Before anything starts: which instance is the VM, that no host has a live copy, what the other cloud would make of
it."""

from __future__ import annotations

from dataclasses import dataclass

from models import failures
from models.cloud_bring import InstanceFacts
from models.cloud_move import PlaceReport
from models.cloud_transfer import CloudTransferRequest, TransferPlan
from models.migration import VmRef
from workflows import errors, request
from workflows.calls.arrivals import SourceCloud
from workflows.calls.cloud import CloudSite
from workflows.cloud import arrival_outset, transfer_plan

_EXAMPLE = '{"vm": "web", "source": "aws:eu-west-1", "to": "azure:westeurope", "size": "Standard_B2s"}'


@dataclass(frozen=True)
class Survey:
    instance: InstanceFacts
    offer: PlaceReport
    vm: VmRef
    """With the uuid that it has had, or gets."""
    token: int
    """The highest that a host has seen for it."""
    plan: TransferPlan


def read(raw: object) -> CloudTransferRequest:
    """The request, or ApplicationError InvalidInput."""
    return request.read_as(CloudTransferRequest, raw, _EXAMPLE)


async def survey(site: str, wanted: CloudTransferRequest) -> Survey:
    """Raises TwoCopies, Ambiguous, HostUnavailable; what else is wrong is in the plan."""
    seen = await arrival_outset.alive_nowhere(site, wanted.vm)
    facts = await SourceCloud(site, wanted.source).find(wanted.vm, wanted.instance, sizes=True)
    offer = await CloudSite(site, wanted.to).report(wanted.size)
    prices = await CloudSite(site, wanted.source).report(facts.instance.size or wanted.size) if facts.instance else None
    uuid = await arrival_outset.uuid_of(site, wanted.vm, wanted.source, seen)
    plan = transfer_plan.plan(wanted, facts, offer, prices.prices if prices else ())
    return Survey(facts, offer, VmRef(vm=wanted.vm, uuid=uuid), max((each.token for each in seen), default=0), plan)


def refuse(plan: TransferPlan) -> None:
    """Raise what the blockers say, if there are any."""
    blockers = [finding for finding in plan.findings if finding.severity == "blocker"]
    if blockers:
        listed = "; ".join(f"[{each.id}] {each.what}. {each.remedy}" for each in blockers)
        raise errors.final(
            failures.REFUSED,
            f"{plan.vm} cannot move from {plan.source} to {plan.place}, and nothing was started: {listed}",
        )
