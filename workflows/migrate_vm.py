"""novacron.MigrateVm: one VM moves live from one host of a site to another, or stays where it is. It always ends.

The story: check, prepare both ends of the data path, move, then the end, which is the same whatever happened: ask both
hosts where the VM is, remove a leftover only on certain knowledge, close both ends, and tell. The workflow id
`vm/<site>/<vm>` is the lock: one move of a VM at a time.

Until the switch, a cancel (the update `cancel`, or Temporal's own) is obeyed: the job is aborted, and its real end is
waited for. From the moment the move step has ended, a cancel changes nothing any more.
"""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn

from temporalio import workflow

from models import failures
from models.migration import MigrationOutcome, MoveResult, MoveVm, OpenPath, Phase, Progress, VmRef
from workflows import ending, errors, evidence, preflight, request, verdict
from workflows.aftermath import Aftermath
from workflows.calls import Control, Host
from workflows.chronicle import Chronicle, elapsed
from workflows.lasting import to_the_end

_OPEN = ("checking", "preparing", "moving")
"""Phases in which a cancel is still obeyed."""


@workflow.defn(name="novacron.MigrateVm")
class MigrateVm:
    def __init__(self) -> None:
        self._chronicle = Chronicle()
        self._task: asyncio.Task[Any] | None = None
        self._stop: str | None = None
        """Reason given with the update `cancel`."""
        self._opened: list[Host] = []
        """Hosts on which a data path may exist; noted before each is opened."""
        self._ref: VmRef | None = None
        """The VM, once the move step may have touched it."""
        self._result = MoveResult()
        self._late = False
        self._aftermath: Aftermath | None = None

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
            await self._prepare()
            await self._move()
        except BaseException as error:
            if not errors.handled(error):
                raise
            return await to_the_end(self._end(error), on_cancel=self._too_late)
        return await to_the_end(self._end(None), on_cancel=self._too_late)

    async def _check(self) -> None:
        """Find the VM, and refuse what cannot go well before anything has started."""
        wanted = self._request
        named = [wanted.source, wanted.to] if wanted.source else [wanted.to]
        self._chronicle.begin(f"{wanted.vm} → {wanted.to}", wanted.vm, self._site, named)
        hosts, silent = await preflight.hosts_to_ask(Control(self._site), self._site, wanted)
        found = wanted.source or await preflight.find(self._site, wanted, hosts, silent)
        if found == wanted.to:
            raise errors.final(
                failures.REFUSED, f"{wanted.vm}: already on {found}. Nothing to do; name another host to move it"
            )
        self._source = Host(self._site, found)
        self._aftermath = Aftermath(self._source, self._destination, self._id, self._chronicle)
        self._chronicle.between(f"{wanted.vm}: {found} → {wanted.to}", [found, wanted.to])
        self._sheet, warnings = await preflight.admit(self._source, self._destination, wanted.vm)
        for warning in warnings:
            self._chronicle.note(f"{warning.what}. {warning.remedy}")

    async def _prepare(self) -> None:
        """Open the data path: the destination listens, then the source connects."""
        self._go_on_to("preparing")
        policy, here, there = self._request.policy, self._source, self._destination
        self._opened.append(there)
        order = OpenPath(migration_id=self._id, peer=here.name, policy=policy)
        endpoint = await there.open_path(order)
        self._obey()
        self._opened.append(here)
        order = OpenPath(migration_id=self._id, peer=there.name, endpoint=endpoint, policy=policy)
        await here.open_path(order)

    async def _move(self) -> None:
        """The long step. It heartbeats, survives its worker, and aborts libvirt's job on a cancel."""
        self._go_on_to("moving")
        self._ref = VmRef(vm=self._request.vm, uuid=self._sheet.vm.uuid)
        self._result = await self._source.move(
            MoveVm(
                migration_id=self._id,
                vm=self._ref,
                source=self._source.name,
                destination=self._destination.name,
                policy=self._request.policy,
                started=elapsed(),
            )
        )
        self._late = self._result.cancel_came_too_late

    async def _end(self, error: BaseException | None) -> MigrationOutcome:
        """Runs to its end whatever is cancelled meanwhile: where is the VM, what must go, what is left, what to say."""
        if self._aftermath is None or self._ref is None:
            if self._aftermath is not None and self._opened:
                self._chronicle.enter("cleaning")
                await self._aftermath.close(self._opened)
            self._fail(error, None)
        self._chronicle.enter("confirming")
        where = await self._aftermath.confirm(self._ref)
        seconds = elapsed()
        if where.kind == "leftover":
            await self._aftermath.discard(self._ref)
        if where.switching:
            self._chronicle.note("the data path was left alone, so that the switch can still end; it ends by itself")
            self._fail(error, where)
        self._chronicle.enter("cleaning")
        proof = await self._aftermath.close(self._opened)
        if where.kind == "unsettled":  # without its data path the job must come to an end
            where = await self._aftermath.confirm(self._ref)
        if where.kind != "moved":
            self._fail(error, where)
        if error is not None and not errors.cancelled(error):
            self._chronicle.note(f"the move step failed ({errors.explain(error)[1]}), yet {where.reason}")
        if self._late or self._stopping() is not None:
            self._chronicle.note("a cancel came after the point of no return: the move was finished")
        for note in proof.notes:
            self._chronicle.note(note)
        self._chronicle.enter("done")
        return self._outcome(seconds, proof)

    def _fail(self, error: BaseException | None, where: verdict.Verdict | None) -> NoReturn:
        failure = ending.failure(self._request.vm, error, where, self._stopping(), self._chronicle.notes)
        self._chronicle.enter("cancelled" if failure.type == failures.CANCELLED else "failed")
        self._chronicle.note(failure.message)
        if failure.type == failures.CANCELLED and workflow.cancellation_reason() is not None and error is not None:
            raise error  # Temporal's own cancel: the run ends as Canceled, the details say where the VM is
        raise failure from error

    def _outcome(self, seconds: float, proof: evidence.Evidence) -> MigrationOutcome:
        return MigrationOutcome(
            vm=self._request.vm,
            site=self._site,
            source=self._source.name,
            destination=self._destination.name,
            migration_id=self._id,
            seconds=seconds,
            downtime_ms=self._result.downtime_ms,
            memory_bytes=self._result.memory_total,
            iterations=self._result.iterations,
            raw_bytes=proof.raw_bytes,
            wire_bytes=proof.wire_bytes,
            redials=proof.redials,
            digest=proof.digest,
            digest_verified=proof.verified,
            notes=tuple(self._chronicle.notes),
        )

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
        phase = self.progress().phase
        if phase not in _OPEN:
            raise errors.final(
                failures.REFUSED,
                f"too late to cancel: the move is {phase}, past its point of no return. Wait for its result",
            )
