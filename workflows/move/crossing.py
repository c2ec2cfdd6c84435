"""A VM's way to the other host: its disk images made ready, the data path opened, the move, and in post-copy all over
again.

When post-copy breaks off, each host holds a part of the VM's memory. Then nothing is undone: the old data path is
closed at both ends, both libvirts are waited for to see that, and the move goes on over a new path under a new id. A
split VM whose job still runs is attached to instead, as it is after a host worker that was gone too long.
"""

from __future__ import annotations

from collections.abc import Callable

from temporalio import workflow
from temporalio.exceptions import ActivityError

from models.disks import DiskImage
from models.migration import MigrationPolicy, MoveResult, MoveVm, OpenPath, VmRef
from models.steering import Steered, SteerMove
from workflows import errors
from workflows.calls import deadlines
from workflows.calls.site import Host
from workflows.move import evidence
from workflows.move.aftermath import Aftermath
from workflows.move.chronicle import Chronicle, elapsed
from workflows.plan.preflight import Survey
from workflows.sharing.joining import Sharing
from workflows.site import verdict

BESIDE_RAM_MIB = 64
"""What a guest has beside its RAM: video memory, firmware."""


class Crossing:
    def __init__(
        self, source: Host, destination: Host, aftermath: Aftermath, chronicle: Chronicle, migration_id: str
    ) -> None:
        self._source = source
        self._destination = destination
        self._aftermath = aftermath
        self._chronicle = chronicle
        self.first_id = migration_id
        self._id = migration_id
        self._opened: list[Host] = []
        """Hosts on which a data path may exist; noted before each is opened."""
        self._disks: tuple[DiskImage, ...] = ()
        """Images that may exist at the destination; noted before they are made."""
        self._parts: list[evidence.Evidence] = []
        self._memory_mib = 0
        self._wire_mib = 0
        self.sharing: Sharing | None = None
        """Where the site bounds what all moves use together."""
        """The bound on the link that the open path was told."""
        self.ref: VmRef | None = None
        """The VM, once the move step may have touched it."""
        self.moving = False
        """A data path is open and the move step runs over it."""
        self.begun: MigrationPolicy | None = None
        """What the move step was started with."""
        self._wishes = 0
        self.result = MoveResult()
        self.recoveries = 0

    @property
    def started(self) -> bool:
        """There may be something to clean up."""
        return bool(self._opened or self._disks)

    def adopt(self, vm: VmRef, admitted: Survey) -> None:
        """A VM in two halves, left by a run that ended: all that is to be done is to bring it together."""
        self.ref, self._memory_mib = vm, _memory_mib(admitted)

    async def prepare(self, admitted: Survey) -> None:
        """Empty images for the disks that are copied."""
        self._memory_mib = _memory_mib(admitted)
        if admitted.copies:
            self._disks = admitted.copies
            await self._destination.prepare_disks(self.first_id, self._disks)

    async def open(self, vm: VmRef, policy: MigrationPolicy, obey: Callable[[], None]) -> None:
        """The destination listens, then the source connects. `obey` raises when the move is to stop between the two."""
        here, there = self._source, self._destination
        self._wire_mib = policy.wire_mib
        self._opened.append(there)
        fitting = _fitting(policy, self._memory_mib)
        order = OpenPath(migration_id=self._id, peer=here.name, policy=fitting, vm=vm)
        endpoint = await there.open_path(order)
        obey()
        self._opened.append(here)
        order = OpenPath(migration_id=self._id, peer=there.name, endpoint=endpoint, policy=fitting, vm=vm)
        await here.open_path(order)
        if self.sharing is not None:
            await self.sharing.join(self._id, policy)

    async def move(self, vm: VmRef, policy: MigrationPolicy, resume: bool = False) -> None:
        """The long step. It heartbeats, survives its worker, and aborts libvirt's job on a cancel."""
        self.ref = vm
        if policy.wire_mib != self._wire_mib:  # it was changed while the path was being opened
            await self.limit(policy.wire_mib)
        order = MoveVm(
            migration_id=self._id,
            vm=vm,
            source=self._source.name,
            destination=self._destination.name,
            policy=policy,
            started=elapsed(),
            memory_mib=self._memory_mib,
            resume=resume,
            copies=tuple(image.target for image in self._disks),
        )
        self.moving, self.begun = True, self.begun or policy
        try:
            self.result = await self._source.move(order)
        finally:
            self.moving = False

    async def limit(self, mib: int) -> None:
        """Bound what the source puts on the link from now on. Raises ActivityError."""
        if self.sharing is None or not await self.sharing.ask(mib):
            await self._source.limit(self._id, mib)
        self._wire_mib = mib

    async def steer(self, policy: MigrationPolicy, held_until: float) -> Steered:
        """Tell the move step what is wanted from now on. Raises ActivityError."""
        self._wishes += 1
        order = SteerMove(
            migration_id=self._id, number=self._wishes, policy=policy, held_until=held_until, vm=self._source.owner
        )
        return await self._source.steer(order)

    async def come_together(
        self, where: verdict.Verdict, policy: Callable[[], MigrationPolicy], error: BaseException | None
    ) -> tuple[verdict.Verdict, BaseException | None]:
        """The VM is in two halves: go on with its post-copy until it is whole. Nothing else can be done for it.
        Returns where it is then, and what stood in the way of the last attempt."""
        assert self.ref is not None
        for pause in deadlines.RESUME_AFTER:
            self._chronicle.enter("post-copy")
            before = f"; the last attempt: {errors.explain(error)[1]}" if error else ""
            self._chronicle.remark(f"{where.reason}{before}")
            await workflow.sleep(pause, summary=f"before going on with post-copy: {where.kind}")
            try:
                await self._go_on(self.ref, where, policy)
                error = None
            except ActivityError as failed:
                error = failed
            self._chronicle.enter("confirming")
            where = await self._aftermath.confirm(self.ref)
            if where.kind != "split":
                break
        if self.recoveries:
            self._chronicle.note(f"post-copy broke off and was gone on with; attempts: {self.recoveries}")
        return where, error

    async def _go_on(self, vm: VmRef, where: verdict.Verdict, policy: Callable[[], MigrationPolicy]) -> None:
        if where.broken_off:
            self.recoveries += 1
            self._parts.append(await self._close())
            if (await self._aftermath.halves(vm)).kind != "split":
                return  # it has come together, or apart, meanwhile: the caller looks
            self._id = workflow.uuid4().hex[:16]
            await self.open(vm, policy(), lambda: None)
        await self.move(vm, policy(), resume=True)

    async def close(self) -> evidence.Evidence:
        """Both ends of the path that is open, and what all paths of this move recorded."""
        self._parts.append(await self._close())
        return evidence.join(self._parts)

    async def settle(self, keep: bool | None) -> None:
        """What becomes of the images that were made for this move."""
        if self._disks:
            await self._aftermath.settle_disks(self.first_id, self._disks, keep)

    async def _close(self) -> evidence.Evidence:
        if self.sharing is not None:
            await self.sharing.leave()
        opened, self._opened = self._opened, []
        return await self._aftermath.close(opened, self._id)


def _memory_mib(admitted: Survey) -> int:
    return admitted.sheet.vm.memory_mib if admitted.sheet else 0


def _fitting(policy: MigrationPolicy, memory_mib: int) -> MigrationPolicy:
    """No more page memory than the guest has pages: each end touches all of it at once. Decided here, as both ends must
    have the same."""
    if not memory_mib:
        return policy
    return policy.model_copy(update={"page_memory_mib": min(policy.page_memory_mib, memory_mib + BESIDE_RAM_MIB)})
