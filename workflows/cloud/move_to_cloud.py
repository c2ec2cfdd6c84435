"""novacron.MoveToCloud: a VM of a host becomes an instance in a cloud. Exactly one of the two runs, at any moment.

The story: check and plan; take the VM's record; copy its disks while it runs, in rounds, until the last one is expected
to be short; wait for whatever the request waits for; stop the VM, send the last changes, prove the disks equal, run the
instance, check it; then the record names the cloud, which is the point of no return. The source is kept shut off for
a while, and can be rolled back to. A cut-over that fails is undone, and what was copied stays: the next attempt sends
differences only. The id `vm/<site>/<vm>` is the lock that moves and recoveries of the VM have too.
"""

from __future__ import annotations

from typing import Any

from temporalio import workflow

from models.cloud_move import CloudMoveOutcome, CloudPlan
from workflows.calls.cloud import CloudSite, SourceHost
from workflows.calls.site import Host
from workflows.cloud import outset
from workflows.cloud.copying import Copying
from workflows.cloud.crossing import Crossing
from workflows.cloud.keeping import Keeping
from workflows.cloud.undertaking import Attempt


@workflow.defn(name="novacron.MoveToCloud")
class MoveToCloud(Keeping):
    _cuts = "the VM is shut down at its source, and its last changes are sent"
    _kept = "copied"
    _late = "a cancel came after the point of no return: the VM runs in the cloud; roll_back takes it home"

    @workflow.run
    async def run(self, raw: Any = None) -> CloudMoveOutcome:
        self._wanted = wanted = outset.read(raw)
        plan = await self._undertake(f"{wanted.vm} to {wanted.to}", self._check, lambda: self._source)
        return self._outcome().model_copy(update={"plan": plan})

    async def _check(self) -> CloudPlan:
        facts, plan = await outset.survey(self._site, self._wanted)
        self._host = SourceHost(self._site, facts.host)
        self._cloud = CloudSite(self._site, self._wanted.to)
        move = workflow.uuid4().hex[:16]
        self._cached = plan.cached
        self._copy = Copying(self._host, facts, self._wanted.to, move, cached=plan.cached)
        self._source, self._runs_on = facts.host, facts.host
        self._copies = f"copying {len(facts.disks)} disks while the VM runs"
        return plan

    def _refuse(self, plan: CloudPlan) -> None:
        outset.refuse(plan)

    async def _own(self) -> None:
        assert self._copy is not None
        host = Host(self._site, self._source)
        sheet = await host.inspect(self._copy.ref)
        self._copy.ref = await self._owner.take(self._site, sheet, host, host)

    def _next_attempt(self) -> Attempt:
        assert self._copy is not None
        self._crossing = Crossing(self._wanted, self._host, self._cloud, self._copy, str(self._attempt))
        return self._crossing

    def _as_before(self) -> str:
        return f"{self._wanted.vm} runs on {self._source} as before"

    async def _clear(self) -> None:
        if self._copy is not None and self._copy.ref.token:
            await self._try("rounds or ledgers are left", self._copy.settle)
            await self._try("snapshots are left", self._cloud.remove, "", self._copy.made)

    def _outcome(self) -> CloudMoveOutcome:
        copy = self._copy
        assert copy is not None
        return CloudMoveOutcome(
            vm=self._wanted.vm,
            site=self._site,
            source=self._source,
            place=self._wanted.to,
            instance=self._crossing.instance if self._crossing else "",
            rolled_back=self._rolled_back,
            source_removed=self._removed,
            downtime=round(self._downtime, 3),
            sent_bytes=copy.sent_bytes,
            saved_bytes=copy.saved_bytes,
            kept_bases=self._kept_bases,
            rounds=tuple(copy.reports),
            disks=copy.disks,
            notes=tuple(self._chronicle.notes),
        )
