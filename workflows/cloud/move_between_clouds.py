"""novacron.MoveBetweenClouds: an instance of one cloud becomes one of another. Exactly one of the two runs, at any
moment.

The story: check and plan; take the VM's record; bring its disks across while the instance runs, in rounds of snapshots,
until the last one is expected to be short; wait for whatever the request waits for; stop the instance, bring the last
changes, prove the disks equal, run the new instance, check it; then the record names the new cloud, which is the point
of no return. The old instance is kept stopped for a while, and can be rolled back to. A cut-over that fails is undone,
and what was brought stays: the next attempt brings differences only. The id `vm/<site>/<vm>` is the lock that all
operations on the VM have.
"""

from __future__ import annotations

from typing import Any

from temporalio import workflow

from models.cloud_move import owner_of
from models.cloud_transfer import CloudTransferOutcome, TransferPlan
from workflows.calls.arrivals import SourceCloud
from workflows.calls.cloud import CloudSite
from workflows.calls.transfers import Relay
from workflows.cloud import transfer_outset, transfer_plan
from workflows.cloud.arrival_plan import ran
from workflows.cloud.handing import Handing
from workflows.cloud.relaying import Relaying
from workflows.cloud.undertaking import Attempt


@workflow.defn(name="novacron.MoveBetweenClouds")
class MoveBetweenClouds(Handing):
    _cuts = "the instance is stopped, and its last changes are brought across"
    _kept = "brought across"
    _late = "a cancel came after the point of no return: the VM runs in the new cloud; roll_back takes it back"

    @workflow.run
    async def run(self, raw: Any = None) -> CloudTransferOutcome:
        self._wanted = wanted = transfer_outset.read(raw)
        what = f"{wanted.vm} from {wanted.source} to {wanted.to}"
        plan = await self._undertake(what, self._check, lambda: wanted.source)
        return self._outcome().model_copy(update={"plan": plan})

    async def _check(self) -> TransferPlan:
        wanted = self._wanted
        self._found = found = await transfer_outset.survey(self._site, wanted)
        told = found.instance
        self._from, self._cloud = SourceCloud(self._site, wanted.source), CloudSite(self._site, wanted.to)
        self._instance, self._runs_on = found.plan.instance, wanted.source
        self._ran = ran(told)
        self._architecture = told.size.architecture if told.size else "x86_64"
        self._copy = Relaying(
            Relay(self._site),
            self._from,
            wanted.to,
            found.vm,
            told.volumes,
            workflow.uuid4().hex[:16],
            deltas=told.warm and found.offer.warm,
            read_back=transfer_plan.reads_back(wanted, found.offer),
        )
        self._copies = f"bringing {len(told.volumes)} disks across while the instance runs"
        return found.plan

    def _refuse(self, plan: TransferPlan) -> None:
        transfer_outset.refuse(plan)

    async def _own(self) -> None:
        assert self._copy is not None
        owner = owner_of(self._wanted.source)
        self._copy.ref = await self._owner.take_from(self._site, self._found.vm, owner, self._found.token)

    def _next_attempt(self) -> Attempt:
        self._crossing = attempt = self._trial(str(self._attempt))
        return attempt

    def _as_before(self) -> str:
        return f"{self._wanted.vm} {'runs' if self._ran else 'is stopped'} in {self._wanted.source} as before"

    def _outcome(self) -> CloudTransferOutcome:
        copy = self._copy
        assert copy is not None
        return CloudTransferOutcome(
            vm=self._wanted.vm,
            site=self._site,
            source=self._wanted.source,
            place=self._wanted.to,
            instance=self._crossing.instance if self._crossing else "",
            source_instance=self._instance,
            rolled_back=self._rolled_back,
            source_terminated=self._removed,
            downtime=round(self._downtime, 3),
            sent_bytes=copy.sent_bytes,
            rounds=tuple(copy.reports),
            disks=copy.disks,
            notes=tuple(self._chronicle.notes),
        )
