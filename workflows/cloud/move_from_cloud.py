"""novacron.MoveFromCloud: an instance of a cloud becomes a VM of a host. Exactly one of the two runs, at any moment.

The story: check and plan; take the VM's record; bring its disks while the instance runs, in rounds of snapshots, until
the last one is expected to be short; wait for whatever the request waits for; stop the instance, bring the last
changes, prove the images equal, define and start the VM, check it; then the record names the host, which is the point
of no return. The instance is kept stopped for a while, and can be rolled back to. A cut-over that fails is undone, and
what was brought stays: the next attempt brings differences only. The id `vm/<site>/<vm>` is the lock that all
operations on the VM have.
"""

from __future__ import annotations

import asyncio
from typing import Any

from temporalio import workflow

from models import failures
from models.cloud_bring import BringPlan, CloudBringOutcome
from models.cloud_move import owner_of
from workflows import errors, request
from workflows.calls.arrivals import ArrivalHost, SourceCloud
from workflows.cloud import arrival_outset, arrival_plan
from workflows.cloud.arrival_outset import Survey
from workflows.cloud.fetching import Fetching
from workflows.cloud.landing import Landing
from workflows.cloud.staying import Staying
from workflows.lasting import to_the_end


@workflow.defn(name="novacron.MoveFromCloud")
class MoveFromCloud(Staying):
    def __init__(self) -> None:
        super().__init__()
        self._attempt = 0
        self._downtime = 0.0

    @workflow.run
    async def run(self, raw: Any = None) -> CloudBringOutcome:
        self._task = asyncio.current_task()
        self._wanted = wanted = arrival_outset.read(raw)
        info = workflow.info()
        self._site = request.site_of(info.workflow_id, info.task_queue, wanted.vm)
        self._chronicle.begin(f"{wanted.vm} from {wanted.source} to {wanted.to}", wanted.vm, self._site, [])
        try:
            found = await self._check()
            if wanted.dry_run:
                self._enter("done")
                return self._outcome().model_copy(update={"plan": found.plan})
            await self._take(found)
            await self._move(found.plan)
        except BaseException as error:
            if not errors.handled(error):
                raise
            raise await to_the_end(self._fail(error), on_cancel=lambda: None) from error
        await to_the_end(self._keep(), on_cancel=self._too_late)
        return self._outcome()

    async def _check(self) -> Survey:
        wanted = self._wanted
        found = await arrival_outset.survey(self._site, wanted)
        self._host = ArrivalHost(self._site, wanted.to)
        self._cloud = SourceCloud(self._site, wanted.source)
        self._instance, self._runs_on = found.plan.instance, wanted.source
        self._ran = arrival_plan.ran(found.instance)
        self._hardware = arrival_plan.hardware(wanted, found.instance)
        move = workflow.uuid4().hex[:16]
        told = found.instance
        self._copy = Fetching(self._host, self._cloud, found.vm, told.volumes, wanted.folder, move, deltas=told.warm)
        return found

    async def _take(self, found: Survey) -> None:
        arrival_outset.refuse(found.plan)
        for finding in found.plan.findings:
            self._chronicle.note(f"[{finding.id}] {finding.what}. {finding.remedy}")
        self._obey()
        assert self._copy is not None
        owner = owner_of(self._wanted.source)
        self._copy.ref = await self._owner.take_from(self._site, found.vm, owner, found.host.vm.token)

    async def _move(self, plan: BringPlan) -> None:
        if plan.warm:
            self._enter("copying", f"bringing {len(plan.volumes)} disks while the instance runs")
            await self._round()
            await self._converge()
        while True:
            await self._until_due(plan.warm)
            if await self._cut_over():
                return

    async def _cut_over(self) -> bool:
        """False when it failed and was undone: the instance runs again, and people say when to try again."""
        assert self._copy is not None
        self._obey()
        self._attempt, self._why, self._cut_now = self._attempt + 1, "", False
        self._enter("cutting over", "the instance is stopped, and its last changes are brought")
        self._runs_on = ""
        landing = Landing(
            self._wanted, self._host, self._cloud, self._copy, self._instance, self._hardware, self._ran, self._attempt
        )
        try:
            self._downtime = await landing.run(self._obey)
            self._obey()
        except BaseException as error:
            if not errors.handled(error):
                raise
            await to_the_end(landing.undo(), on_cancel=lambda: None)
            self._runs_on = self._wanted.source
            if errors.cancelled(error):
                raise
            state = "runs" if self._ran else "is stopped"
            self._why = (
                f"the cut-over failed and was undone: {errors.explain(error)[1]}. {self._wanted.vm} {state} in "
                f"{self._wanted.source} as before; what was brought is kept: cut_over_now tries again, cancel gives up"
            )
            self._chronicle.note(self._why)
            return False
        self._runs_on = self._wanted.to
        return True

    async def _fail(self, error: BaseException) -> BaseException:
        """How it ends when the VM has not moved: nothing is left in the cloud or on the host, and why."""
        kind, why = errors.explain(error)
        if errors.cancelled(error):
            self._stop = self._stop or workflow.cancellation_reason() or "no reason given"
            kind, why = failures.CANCELLED, f"{self._wanted.vm}: cancelled: {self._stop}"
        if self._copy is not None and kind != failures.AMBIGUOUS and self._copy.ref.token:
            await self._try("images or ledgers are left", self._copy.settle, keep=False)
            await self._try("snapshots are left", self._cloud.remove, "", self._copy.made, self._copy.begun)
        await self._owner.end()
        self._enter("cancelled" if kind == failures.CANCELLED else "failed", why)
        left = "".join(f" Note: {note}." for note in self._chronicle.notes)
        await self._chronicle.close()
        cancelled_by_temporal = kind == failures.CANCELLED and workflow.cancellation_reason() is not None
        return error if cancelled_by_temporal else errors.final(kind, f"{why}{left}")

    def _too_late(self) -> None:
        self._chronicle.note(
            "a cancel came after the point of no return: the VM runs on its host; roll_back takes it to the cloud again"
        )

    def _outcome(self) -> CloudBringOutcome:
        copy = self._copy
        assert copy is not None
        return CloudBringOutcome(
            vm=self._wanted.vm,
            site=self._site,
            place=self._wanted.source,
            host=self._wanted.to,
            instance=self._instance,
            rolled_back=self._rolled_back,
            instance_terminated=self._removed,
            downtime=round(self._downtime, 3),
            received_bytes=copy.sent_bytes,
            rounds=tuple(copy.reports),
            disks=copy.disks,
            images=tuple(image.path for image in copy.images) if copy.disks else (),
            notes=tuple(self._chronicle.notes),
        )
