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
from temporalio.exceptions import FailureError

from models import failures
from models.migration import MigrationOutcome, MoveResult, Phase
from models.slots import WAKE, SlotWish
from workflows import errors, request
from workflows.calls.site import Host
from workflows.lasting import to_the_end
from workflows.move import ending, goals, steering
from workflows.move.aftermath import Aftermath
from workflows.move.chronicle import elapsed
from workflows.move.crossing import Crossing
from workflows.move.outset import Outset
from workflows.move.ownership import Ownership
from workflows.move.steered import Steered
from workflows.site import verdict

_KEEP_DISKS: dict[verdict.Kind, bool] = {"moved": True, "stayed": False, "leftover": False}
"""What becomes of images made at the destination, where that is certain."""


@workflow.defn(name="novacron.MigrateVm")
class MigrateVm(Steered):
    def __init__(self) -> None:
        super().__init__()
        self._outset = Outset(self._chronicle, self._changes)
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
        for decision in self._crossing.result.decisions:
            self._chronicle.decide(decision)
        self._late = self._crossing.result.cancel_came_too_late

    async def _end(self, error: BaseException | None) -> MigrationOutcome:
        """Runs to its end whatever is cancelled meanwhile, and no update is left without its answer."""
        try:
            outcome = await self._finish(error)
        except (asyncio.CancelledError, FailureError):
            await self._owner.end()
            await self._over()
            raise
        await self._over()
        return outcome

    async def _over(self) -> None:
        await self._outset.slot.give_back()
        await self._chronicle.close()

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
        if where.kind in ("stayed", "leftover") and not leftover:
            await self._aftermath.set_going(self._ref, where, self._policy().allow_pause)
        await crossing.settle(keep=None if leftover else _KEEP_DISKS.get(where.kind))
        if where.kind != "moved":
            self._fail(error, where)
        if self._admitted.sheet is not None and self._admitted.sheet.vm.autostart:
            await self._aftermath.start_with_host(self._ref)
        if error is not None and not errors.cancelled(error):
            self._chronicle.note(f"the move step failed ({errors.explain(error)[1]}), yet {where.reason}")
        if self._late or self._stopping() is not None:
            self._chronicle.note("a cancel came after the point of no return: the move was finished")
        for note in proof.notes:
            self._chronicle.note(note)
        await self._owner.end(runs_on=self._destination.name)
        way = ending.Way(self._site, self._source.name, self._destination.name, self._id)
        outcome = ending.outcome(
            self._request.vm, way, crossing.result, crossing.recoveries, seconds, proof, self._chronicle.notes
        )
        self._judge(moved=True, seconds=seconds, result=crossing.result)
        return self._chronicle.done(outcome.model_copy(update={"goals": self._goals}))

    def _fail(self, error: BaseException | None, where: verdict.Verdict | None) -> NoReturn:
        self._judge(moved=False, seconds=elapsed())
        failure = ending.failure(self._request.vm, error, where, self._stopping(), self._chronicle.notes)
        self._chronicle.failed(failure, where)
        if failure.type == failures.CANCELLED and workflow.cancellation_reason() is not None and error is not None:
            raise error  # Temporal's own cancel: the run ends as Canceled, the details say where the VM is
        raise failure from error

    def _judge(self, moved: bool, seconds: float, result: MoveResult | None = None) -> None:
        """Which goals were kept; none where nothing had begun to move."""
        chronicle, told = self._chronicle, result or MoveResult()
        if chronicle.moving_since:
            at = workflow.info().start_time.timestamp() + seconds
            end = goals.End(moved, seconds - chronicle.moving_since, at, told.downtime_ms, told.post_copy)
            self._goals = goals.judge(self._policy(), end, chronicle.decisions)

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

    @workflow.update(description="Start at once instead of waiting for a window of the policy")
    def start_now(self) -> str:
        self._outset.start_now()
        return f"{self._request.vm} is checked anew, and moves now"

    @start_now.validator
    def _waits(self) -> None:
        steering.may_start_now(self._standing(), self._outset.slot.waits)

    @workflow.signal(name=WAKE, description="A slot may be free; not for people")
    def slot_free(self) -> None:
        self._outset.slot.called()

    @workflow.query(description="What the move holds or waits for of the site's slots; null: nothing yet")
    def slot_wish(self) -> SlotWish | None:
        return self._outset.slot.wish()
