"""novacron.MoveToCloud: a VM of a host becomes an instance in a cloud. Exactly one of the two runs, at any moment.

The story: check and plan; take the VM's record; copy its disks while it runs, in rounds, until the last one is expected
to be short; wait for whatever the request waits for; stop the VM, send the last changes, prove the disks equal, run the
instance, check it; then the record names the cloud, which is the point of no return. The source is kept shut off for
a while, and can be rolled back to. A cut-over that fails is undone, and what was copied stays: the next attempt sends
differences only. The id `vm/<site>/<vm>` is the lock that moves and recoveries of the VM have too.
"""

from __future__ import annotations

import asyncio
from typing import Any

from temporalio import workflow

from models import failures
from models.cloud_move import CloudMoveOutcome, CloudPlan
from workflows import errors, request
from workflows.calls.cloud import CloudSite, SourceHost
from workflows.calls.site import Host
from workflows.cloud import outset
from workflows.cloud.copying import Copying
from workflows.cloud.crossing import Crossing
from workflows.cloud.keeping import Keeping
from workflows.lasting import to_the_end
from workflows.site import verdict


@workflow.defn(name="novacron.MoveToCloud")
class MoveToCloud(Keeping):
    def __init__(self) -> None:
        super().__init__()
        self._attempt = 0
        self._downtime = 0.0

    @workflow.run
    async def run(self, raw: Any = None) -> CloudMoveOutcome:
        self._task = asyncio.current_task()
        self._wanted = wanted = outset.read(raw)
        info = workflow.info()
        self._site = request.site_of(info.workflow_id, info.task_queue, wanted.vm)
        self._chronicle.begin(f"{wanted.vm} to {wanted.to}", wanted.vm, self._site, [])
        try:
            plan = await self._check()
            if wanted.dry_run:
                self._enter("done")
                return self._outcome().model_copy(update={"plan": plan})
            await self._take(plan)
            await self._move(plan)
        except BaseException as error:
            if not errors.handled(error):
                raise
            raise await to_the_end(self._fail(error), on_cancel=lambda: None) from error
        await to_the_end(self._keep(), on_cancel=self._too_late)
        return self._outcome()

    async def _check(self) -> CloudPlan:
        facts, plan = await outset.survey(self._site, self._wanted)
        self._host = SourceHost(self._site, facts.host)
        self._cloud = CloudSite(self._site, self._wanted.to)
        move = workflow.uuid4().hex[:16]
        self._cached = plan.cached
        self._copy = Copying(self._host, facts, self._wanted.to, move, cached=plan.cached)
        self._source, self._runs_on = facts.host, facts.host
        return plan

    async def _take(self, plan: CloudPlan) -> None:
        outset.refuse(plan)
        for finding in plan.findings:
            self._chronicle.note(f"[{finding.id}] {finding.what}. {finding.remedy}")
        self._obey()
        assert self._copy is not None
        host = Host(self._site, self._source)
        sheet = await host.inspect(self._copy.ref)
        self._copy.ref = await self._owner.take(self._site, sheet, host, host)

    async def _move(self, plan: CloudPlan) -> None:
        assert self._copy is not None
        if plan.warm:
            self._enter("copying", f"copying {len(self._copy.facts.disks)} disks while the VM runs")
            await self._round()
            await self._converge()
        while True:
            await self._until_due(plan.warm)
            if await self._cut_over():
                return

    async def _cut_over(self) -> bool:
        """False when it failed and was undone: the VM runs at its source again, and people say when to try again."""
        assert self._copy is not None
        self._obey()
        self._attempt, self._why, self._cut_now = self._attempt + 1, "", False
        self._enter("cutting over", "the VM is shut down at its source, and its last changes are sent")
        self._runs_on = ""
        self._crossing = Crossing(self._wanted, self._host, self._cloud, self._copy, str(self._attempt))
        try:
            self._downtime = await self._crossing.run(self._obey)
            await self._only_copy()
            self._obey()
        except BaseException as error:
            if not errors.handled(error):
                raise
            await to_the_end(self._crossing.undo(), on_cancel=lambda: None)
            self._crossing, self._runs_on = None, self._source
            if errors.cancelled(error):
                raise
            self._why = (
                f"the cut-over failed and was undone: {errors.explain(error)[1]}. {self._wanted.vm} runs on "
                f"{self._source} as before; what was copied is kept: cut_over_now tries again, cancel gives up"
            )
            self._chronicle.note(self._why)
            return False
        self._runs_on = self._wanted.to
        return True

    async def _only_copy(self) -> None:
        """The source is still off: the last look before it is let go."""
        assert self._copy is not None
        seen = await Host(self._site, self._source).where_is(self._copy.ref)
        if verdict.alive(seen):
            raise errors.final(
                failures.MIGRATION_FAILED, f"somebody started {self._wanted.vm} at its source: {verdict.describe(seen)}"
            )

    async def _fail(self, error: BaseException) -> BaseException:
        """How it ends when the VM has not moved: nothing is left in the cloud or on the host, and why."""
        kind, why = errors.explain(error)
        if errors.cancelled(error):
            self._stop = self._stop or workflow.cancellation_reason() or "no reason given"
            kind, why = failures.CANCELLED, f"{self._wanted.vm}: cancelled: {self._stop}"
        if self._copy is not None and kind != failures.AMBIGUOUS and self._copy.ref.token:
            await self._try("rounds or ledgers are left", self._copy.settle)
            await self._try("snapshots are left", self._cloud.remove, "", self._copy.made)
        await self._owner.end()
        self._enter("cancelled" if kind == failures.CANCELLED else "failed", why)
        left = "".join(f" Note: {note}." for note in self._chronicle.notes)
        await self._chronicle.close()
        cancelled_by_temporal = kind == failures.CANCELLED and workflow.cancellation_reason() is not None
        return error if cancelled_by_temporal else errors.final(kind, f"{why}{left}")

    def _too_late(self) -> None:
        self._chronicle.note(
            "a cancel came after the point of no return: the VM runs in the cloud; roll_back takes it home"
        )

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
