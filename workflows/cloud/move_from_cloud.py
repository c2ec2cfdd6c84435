"""novacron.MoveFromCloud: an instance of a cloud becomes a VM of a host. Exactly one of the two runs, at any moment.

The story: check and plan; take the VM's record; bring its disks while the instance runs, in rounds of snapshots, until
the last one is expected to be short; wait for whatever the request waits for; stop the instance, bring the last
changes, prove the images equal, define and start the VM, check it; then the record names the host, which is the point
of no return. The instance is kept stopped for a while, and can be rolled back to. A cut-over that fails is undone, and
what was brought stays: the next attempt brings differences only. The id `vm/<site>/<vm>` is the lock that all
operations on the VM have.
"""

from __future__ import annotations

from typing import Any

from temporalio import workflow

from models.cloud_bring import BringPlan, CloudBringOutcome
from models.cloud_move import owner_of
from workflows.calls.arrivals import ArrivalHost, SourceCloud
from workflows.cloud import arrival_outset, arrival_plan
from workflows.cloud.fetching import Fetching
from workflows.cloud.landing import Landing
from workflows.cloud.staying import Staying
from workflows.cloud.undertaking import Attempt


@workflow.defn(name="novacron.MoveFromCloud")
class MoveFromCloud(Staying):
    _cuts = "the instance is stopped, and its last changes are brought"
    _kept = "brought"
    _late = "a cancel came after the point of no return: the VM runs on its host; roll_back takes it to the cloud again"

    @workflow.run
    async def run(self, raw: Any = None) -> CloudBringOutcome:
        self._wanted = wanted = arrival_outset.read(raw)
        what = f"{wanted.vm} from {wanted.source} to {wanted.to}"
        plan = await self._undertake(what, self._check, lambda: wanted.source)
        return self._outcome().model_copy(update={"plan": plan})

    async def _check(self) -> BringPlan:
        wanted = self._wanted
        self._found = found = await arrival_outset.survey(self._site, wanted)
        self._host = ArrivalHost(self._site, wanted.to)
        self._cloud = SourceCloud(self._site, wanted.source)
        self._instance, self._runs_on = found.plan.instance, wanted.source
        self._ran = arrival_plan.ran(found.instance)
        self._hardware = arrival_plan.hardware(wanted, found.instance)
        move = workflow.uuid4().hex[:16]
        told = found.instance
        self._copy = Fetching(self._host, self._cloud, found.vm, told.volumes, wanted.folder, move, deltas=told.warm)
        self._copies = f"bringing {len(told.volumes)} disks while the instance runs"
        return found.plan

    def _refuse(self, plan: BringPlan) -> None:
        arrival_outset.refuse(plan)

    async def _own(self) -> None:
        assert self._copy is not None
        owner = owner_of(self._wanted.source)
        self._copy.ref = await self._owner.take_from(self._site, self._found.vm, owner, self._found.host.vm.token)

    def _next_attempt(self) -> Attempt:
        assert self._copy is not None
        return Landing(
            self._wanted, self._host, self._cloud, self._copy, self._instance, self._hardware, self._ran, self._attempt
        )

    def _as_before(self) -> str:
        return f"{self._wanted.vm} {'runs' if self._ran else 'is stopped'} in {self._wanted.source} as before"

    async def _clear(self) -> None:
        if self._copy is not None and self._copy.ref.token:
            await self._try("images or ledgers are left", self._copy.settle, keep=False)
            await self._try("snapshots are left", self._cloud.remove, "", self._copy.made)

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
