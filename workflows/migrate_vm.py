"""novacron.MigrateVm: one VM moves live from one host of a site to another, or stays where it is. It always ends.

The story: check, prepare both ends of the data path, move, then the end, which is the same whatever happened: ask both
hosts where the VM is, go on with a post-copy that broke off, remove a leftover only on certain knowledge, close both
ends, and tell. The workflow id `vm/<site>/<vm>` is the lock: one move of a VM at a time.

Until the switch, a cancel (the update `cancel`, or Temporal's own) is obeyed: the job is aborted, and its real end is
waited for. From the switch on (in post-copy that is before all memory is across), a cancel changes nothing any more.
"""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn

from temporalio import workflow
from temporalio.exceptions import ActivityError, FailureError

from models import failures
from models.migration import MigrationOutcome, MigrationPolicy, Phase, Progress
from workflows import ending, errors, evidence, request, steering, verdict
from workflows.aftermath import Aftermath
from workflows.calls import Host
from workflows.chronicle import Chronicle, elapsed
from workflows.crossing import Crossing
from workflows.lasting import to_the_end
from workflows.outset import Outset
from workflows.ownership import Ownership

_KEEP_DISKS: dict[verdict.Kind, bool] = {"moved": True, "stayed": False, "leftover": False}
"""What becomes of images made at the destination, where that is certain."""


@workflow.defn(name="novacron.MigrateVm")
class MigrateVm:
    def __init__(self) -> None:
        self._chronicle = Chronicle()
        self._outset = Outset(self._chronicle)
        self._task: asyncio.Task[Any] | None = None
        self._stop: str | None = None
        """Reason given with the update `cancel`."""
        self._crossing: Crossing | None = None
        self._wire_mib: int | None = None
        """The bound on the link, once it was changed."""
        self._late = False
        self._owner = Ownership(self._chronicle)

    @workflow.run
    async def run(self, raw: Any = None) -> MigrationOutcome:
        self._task = asyncio.current_task()
        self._request = request.read(raw)
        info = workflow.info()
        self._site = request.site_of(info.workflow_id, info.task_queue, self._request.vm)
        self._id = workflow.uuid4().hex[:16]
        self._destination = Host(self._site, self._request.to)
        try:
            await self._check()
            if not self._admitted.half:
                await self._prepare()
                await self._move()
        except BaseException as error:
            if not errors.handled(error):
                raise
            return await to_the_end(self._end(error), on_cancel=self._too_late)
        return await to_the_end(self._end(None), on_cancel=self._too_late)

    async def _check(self) -> None:
        """Find the VM, refuse what cannot go well, and wait for a window, before anything has started."""
        wanted = self._request
        self._admitted = found = await self._outset.ready(self._site, wanted)
        assert found.sheet is not None
        self._request = wanted.model_copy(update={"policy": found.sheet.policy})
        self._source = Host(self._site, found.source)
        self._aftermath = Aftermath(self._source, self._destination, self._chronicle)
        self._crossing = Crossing(self._source, self._destination, self._aftermath, self._chronicle, self._id)
        self._crossing.sharing = self._outset.sharing
        self._ref = await self._owner.take(self._site, found.sheet, self._source, self._destination)
        if found.half:
            self._crossing.adopt(self._ref, found)

    async def _prepare(self) -> None:
        """Make room for the disks, and open the data path: the destination listens, then the source connects."""
        self._go_on_to("preparing")
        assert self._crossing is not None
        await self._crossing.prepare(self._admitted)
        self._obey()
        await self._crossing.open(self._ref, self._policy(), self._obey)

    async def _move(self) -> None:
        self._go_on_to("moving")
        assert self._crossing is not None
        await self._crossing.move(self._ref, self._policy())
        self._late = self._crossing.result.cancel_came_too_late

    async def _end(self, error: BaseException | None) -> MigrationOutcome:
        """Runs to its end whatever is cancelled meanwhile, and no update is left without its answer."""
        try:
            outcome = await self._finish(error)
        except (asyncio.CancelledError, FailureError):
            await self._owner.end()
            await workflow.wait_condition(workflow.all_handlers_finished)
            raise
        await workflow.wait_condition(workflow.all_handlers_finished)
        return outcome

    async def _finish(self, error: BaseException | None) -> MigrationOutcome:
        """Where is the VM, what must go, what is left, what to say."""
        crossing = self._crossing
        if crossing is None or crossing.ref is None:
            if crossing is not None and crossing.started:
                self._chronicle.enter("cleaning")
                await crossing.close()
                await crossing.settle(keep=False)
            self._fail(error, None)
        self._chronicle.enter("confirming")
        where = await self._aftermath.confirm(self._ref)
        if where.kind == "split":
            where, error = await crossing.come_together(where, self._policy, error)
        seconds = elapsed()
        leftover = where.kind == "leftover" and not await self._aftermath.discard(self._ref)
        if where.switching:
            self._chronicle.note("the data path was left alone, so that the switch can still end; it ends by itself")
            await crossing.settle(keep=None)
            self._fail(error, where)
        self._chronicle.enter("cleaning")
        proof = await crossing.close()
        if where.kind == "unsettled":  # without its data path the job must come to an end
            where = await self._aftermath.confirm(self._ref)
        await crossing.settle(keep=None if leftover else _KEEP_DISKS.get(where.kind))
        if where.kind != "moved":
            self._fail(error, where)
        if error is not None and not errors.cancelled(error):
            self._chronicle.note(f"the move step failed ({errors.explain(error)[1]}), yet {where.reason}")
        if self._late or self._stopping() is not None:
            self._chronicle.note("a cancel came after the point of no return: the move was finished")
        for note in proof.notes:
            self._chronicle.note(note)
        await self._owner.end(runs_on=self._destination.name)
        self._chronicle.enter("done")
        return self._outcome(crossing, seconds, proof)

    def _fail(self, error: BaseException | None, where: verdict.Verdict | None) -> NoReturn:
        failure = ending.failure(self._request.vm, error, where, self._stopping(), self._chronicle.notes)
        self._chronicle.enter("cancelled" if failure.type == failures.CANCELLED else "failed")
        self._chronicle.note(failure.message)
        if failure.type == failures.CANCELLED and workflow.cancellation_reason() is not None and error is not None:
            raise error  # Temporal's own cancel: the run ends as Canceled, the details say where the VM is
        raise failure from error

    def _outcome(self, crossing: Crossing, seconds: float, proof: evidence.Evidence) -> MigrationOutcome:
        result = crossing.result
        return MigrationOutcome(
            vm=self._request.vm,
            site=self._site,
            source=self._source.name,
            destination=self._destination.name,
            migration_id=self._id,
            seconds=seconds,
            downtime_ms=result.downtime_ms,
            memory_bytes=result.memory_total,
            disk_bytes=result.disk_total,
            post_copy=result.post_copy,
            recoveries=crossing.recoveries,
            iterations=result.iterations,
            raw_bytes=proof.raw_bytes,
            wire_bytes=proof.wire_bytes,
            redials=proof.redials,
            digest=proof.digest,
            digest_verified=proof.verified,
            notes=tuple(self._chronicle.notes),
        )

    def _policy(self) -> MigrationPolicy:
        """As asked for, with what was changed since."""
        asked = self._request.policy
        return asked if self._wire_mib is None else asked.model_copy(update={"wire_mib": self._wire_mib})

    def _go_on_to(self, phase: Phase) -> None:
        self._obey()
        self._chronicle.enter(phase)

    def _obey(self) -> None:
        """A cancel may arrive while a step that cannot be interrupted completes: look before the next one starts."""
        if self._stopping() is not None:
            raise asyncio.CancelledError

    def _stopping(self) -> str | None:
        """Why this move is to stop, or None."""
        return self._stop if self._stop is not None else workflow.cancellation_reason()

    def _too_late(self) -> None:
        self._late = True

    @workflow.query(description="How far the move is: phase, percent, ETA, rates, lanes")
    def progress(self) -> Progress:
        return self._chronicle.progress

    @workflow.signal(name="novacron.progress", description="Report of the move step; not for people")
    def report(self, progress: Progress) -> None:
        self._chronicle.take(progress)

    @workflow.update(description="Stop the move; the VM stays on its source. Argument: the reason, as text")
    def cancel(self, reason: str = "") -> str:
        self._stop = reason or "no reason given"
        if self._task is not None:
            self._task.cancel()
        return (
            f"cancelled while {self.progress().phase}; the VM stays on its source unless it is switching right now. "
            f"The workflow ends when everything started has really ended"
        )

    @cancel.validator
    def _still_open(self, reason: str = "") -> None:
        steering.may_cancel(self.progress().phase, self._request.to)

    @workflow.update(description="Start at once instead of waiting for a window of the policy")
    def start_now(self) -> str:
        self._outset.start_now()
        return f"{self._request.vm} is checked anew, and moves now"

    @start_now.validator
    def _waits(self) -> None:
        steering.may_start_now(self.progress().phase)

    @workflow.update(description="Bound what the move puts on the link. Argument: MiB a second, 0 for no bound")
    async def set_bandwidth(self, mib: int) -> str:
        self._wire_mib = mib
        bound = f"{mib} MiB/s on the link" if mib else "no bound on the link"
        if self._crossing is None or not self._crossing.moving:
            return f"{bound}: noted while {self.progress().phase}, it holds from the moment the data path is open"
        try:
            await self._crossing.limit(mib)
        except ActivityError as error:
            raise errors.final(*errors.explain(error)) from error
        return f"{bound}, from now on"

    @set_bandwidth.validator
    def _has_a_link(self, mib: int) -> None:
        steering.may_limit(self.progress().phase, mib)

    @workflow.update(
        description="Let the VM switch now; the rest of its memory follows. Needs mode post-copy or hybrid"
    )
    async def post_copy_now(self) -> str:
        try:
            seen = await self._source.start_post_copy(self._ref)
        except ActivityError as error:
            raise errors.final(*errors.explain(error)) from error
        if self.progress().phase == "moving" and verdict.presence(seen) == "half":
            self._chronicle.enter("post-copy")
        return f"{self._request.vm} runs on {self._request.to}; the rest of its memory follows"

    @post_copy_now.validator
    def _may_switch(self) -> None:
        steering.may_switch(self.progress().phase, self._request.policy.mode)
