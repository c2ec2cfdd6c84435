"""What a scale run asks Temporal and the site at the end: sizes of histories, how moves failed, is all well."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from temporalio.client import Client, WorkflowExecution, WorkflowExecutionStatus, WorkflowFailureError
from temporalio.exceptions import ApplicationError

from bench.scale_results import Fact, History, spread
from bench.simulated.site import Site
from models.lease import Lease

MOVE = "novacron.MigrateVm"
EVACUATION = "novacron.EvacuateHost"


@dataclass
class Ended:
    """Every workflow of a namespace, as it stands now."""

    by_type: dict[str, list[WorkflowExecution]] = field(default_factory=lambda: defaultdict(list))

    def running(self, but: str = "") -> int:
        """Workflows that have not ended, of any other type."""
        return sum(
            each.status == WorkflowExecutionStatus.RUNNING
            for kind, found in self.by_type.items()
            if kind != but
            for each in found
        )

    def closed(self) -> int:
        return sum(each.status != WorkflowExecutionStatus.RUNNING for found in self.by_type.values() for each in found)

    def moved(self) -> int:
        return sum(each.status == WorkflowExecutionStatus.COMPLETED for each in self.by_type.get(MOVE, ()))


async def ended(client: Client) -> Ended:
    found = Ended()
    async for each in client.list_workflows(page_size=500):
        found.by_type[each.workflow_type].append(each)
    return found


def histories(found: Ended) -> tuple[History, ...]:
    return tuple(
        History(
            type=kind,
            events=spread(float(each.history_length) for each in runs),
            bytes=spread(float(each.raw_info.history_size_bytes) for each in runs),
            seconds=spread(
                (each.close_time - each.start_time).total_seconds() for each in runs if each.close_time is not None
            ),
        )
        for kind, runs in sorted(found.by_type.items())
    )


async def failed_moves(client: Client, found: Ended) -> dict[str, int]:
    """How moves failed, by the type of the error."""
    kinds: Counter[str] = Counter()
    for each in found.by_type.get(MOVE, ()):
        if each.status in (WorkflowExecutionStatus.RUNNING, WorkflowExecutionStatus.COMPLETED):
            continue
        try:
            await client.get_workflow_handle(each.id, run_id=each.run_id).result(follow_runs=False)
        except WorkflowFailureError as error:
            cause = error.cause
            kinds[(cause.type if isinstance(cause, ApplicationError) else None) or type(cause).__name__] += 1
    return dict(kinds)


def owned(site: Site, leases: Iterable[Lease]) -> list[Fact]:
    """What the owner records say, against the hosts."""
    kept = list(leases)
    return [
        Fact(
            what="owner records that name the host on which the VM runs",
            expected=len(kept),
            found=sum(site.runs_on(lease.vm) == [lease.host] for lease in kept),
        ),
        Fact(what="owner records still held by an operation", expected=0, found=sum(bool(e.operation) for e in kept)),
    ]


def safe(site: Site, still_running: int) -> list[Fact]:
    """What has to be true of every site, whatever went wrong on it."""
    facts = site.facts()
    return [
        Fact(what="VMs that run on exactly one host", expected=len(site.vms), found=facts.vms),
        Fact(what="VMs that run nowhere", expected=0, found=facts.lost),
        Fact(what="VMs that ran twice, at the end or at any moment", expected=0, found=facts.doubled),
        Fact(what="paused copies left behind", expected=0, found=facts.leftovers),
        Fact(what="jobs left on VMs", expected=0, found=facts.jobs),
        Fact(what="data path ends left open", expected=0, found=facts.paths),
        Fact(what="workflows left running", expected=0, found=still_running),
    ]
