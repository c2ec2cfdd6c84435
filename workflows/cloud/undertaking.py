"""The story that all moves to, from and between clouds share.

Check and plan; take the VM's record; copy its disks while it runs, in rounds, until the last one is expected to be
short; wait for whatever the request waits for; cut over; then the record names where it runs, which is the point of no
return, and the source is kept for a while. A cut-over that fails is undone, and what was copied stays: the next attempt
copies differences only.
"""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Protocol, TypeVar

from temporalio import workflow

from models import failures
from models.host import Finding
from workflows import errors, request
from workflows.cloud.readiness import Readiness
from workflows.lasting import to_the_end
from workflows.move.ownership import Ownership


class Plan(Protocol):
    @property
    def warm(self) -> bool: ...
    @property
    def findings(self) -> tuple[Finding, ...]: ...


class Attempt(Protocol):
    """One attempt to cut over."""

    async def run(self, obey: Callable[[], None]) -> float: ...
    async def undo(self) -> None: ...


P = TypeVar("P", bound=Plan)


class Undertaking(Readiness, ABC):
    """Base of all moves to, from and between clouds, which say how each step is done."""

    _copies = ""
    """What is done while the VM runs."""
    _cuts = ""
    """What the cut-over does first."""
    _kept = ""
    """What came, and stays after a cut-over that failed."""
    _late = ""
    """What a cancel after the point of no return is told."""

    def __init__(self) -> None:
        super().__init__()
        self._owner = Ownership(self._chronicle)
        self._attempt = 0
        self._downtime = 0.0
        self._rolled_back = self._removed = False

    @abstractmethod
    def _refuse(self, plan: Any) -> None:
        """Raise what its blockers say, if there are any."""

    @abstractmethod
    async def _own(self) -> None:
        """Take the VM's record."""

    @abstractmethod
    def _next_attempt(self) -> Attempt: ...

    @abstractmethod
    def _as_before(self) -> str:
        """How and where the VM is after a cut-over that was undone."""

    @abstractmethod
    async def _clear(self) -> None:
        """The VM has not moved: nothing is left of what was copied."""

    @abstractmethod
    async def _keep(self) -> None:
        """The VM has moved: keep its source for a while, and end."""

    async def _undertake(self, what: str, check: Callable[[], Any], source: Callable[[], str]) -> Any:
        """All of it. The plan of a dry run, else None when the VM has moved, or was given back. `check` plans;
        `source` is where the VM runs until it has moved. Raises how it failed."""
        self._task = asyncio.current_task()
        info = workflow.info()
        self._site = request.site_of(info.workflow_id, info.task_queue, self._wanted.vm)
        self._chronicle.begin(what, self._wanted.vm, self._site, [])
        try:
            plan = await check()
            if self._wanted.dry_run:
                self._enter("done")
                return plan
            await self._take(plan)
            await self._move(plan, source())
        except BaseException as error:
            if not errors.handled(error):
                raise
            raise await to_the_end(self._fail(error), on_cancel=lambda: None) from error
        await to_the_end(self._keep(), on_cancel=lambda: self._chronicle.note(self._late))
        return None

    async def _take(self, plan: Plan) -> None:
        self._refuse(plan)
        for finding in plan.findings:
            self._chronicle.note(f"[{finding.id}] {finding.what}. {finding.remedy}")
        self._obey()
        await self._own()

    async def _move(self, plan: Plan, source: str) -> None:
        if plan.warm:
            self._enter("copying", self._copies)
            await self._round()
            await self._converge()
        while True:
            await self._until_due(plan.warm)
            if await self._cut_over(source):
                return

    async def _cut_over(self, source: str) -> bool:
        """False when it failed and was undone: the VM runs at its source again, and people say when to try again."""
        self._obey()
        self._attempt, self._why, self._cut_now = self._attempt + 1, "", False
        self._enter("cutting over", self._cuts)
        self._runs_on = ""
        attempt = self._next_attempt()
        try:
            self._downtime = await attempt.run(self._obey)
            self._obey()
        except BaseException as error:
            if not errors.handled(error):
                raise
            await to_the_end(attempt.undo(), on_cancel=lambda: None)
            self._undone()
            self._runs_on = source
            if errors.cancelled(error):
                raise
            self._why = (
                f"the cut-over failed and was undone: {errors.explain(error)[1]}. {self._as_before()}; what was "
                f"{self._kept} is kept: cut_over_now tries again, cancel gives up"
            )
            self._chronicle.note(self._why)
            return False
        self._runs_on = self._goes_to()
        return True

    def _undone(self) -> None:
        """Forget the attempt."""

    async def _fail(self, error: BaseException) -> BaseException:
        """How it ends when the VM has not moved: nothing is left of what was copied, and why."""
        kind, why = errors.explain(error)
        if errors.cancelled(error):
            self._stop = self._stop or workflow.cancellation_reason() or "no reason given"
            kind, why = failures.CANCELLED, f"{self._wanted.vm}: cancelled: {self._stop}"
        if kind != failures.AMBIGUOUS:
            await self._clear()
        await self._owner.end()
        self._enter("cancelled" if kind == failures.CANCELLED else "failed", why)
        left = "".join(f" Note: {note}." for note in self._chronicle.notes)
        await self._chronicle.close()
        cancelled_by_temporal = kind == failures.CANCELLED and workflow.cancellation_reason() is not None
        return error if cancelled_by_temporal else errors.final(kind, f"{why}{left}")

    async def _while_kept(self, told: str) -> None:
        """Returns when the source is not kept any longer, or wanted back."""
        seconds = self._wanted.keep_source_for
        self._kept_until = workflow.now() + timedelta(seconds=seconds)
        self._enter("kept", told)
        with contextlib.suppress(TimeoutError):
            await workflow.wait_condition(
                lambda: self._let or self._give_back is not None,
                timeout=timedelta(seconds=seconds),
                timeout_summary="the source is kept",
            )

    async def _over(self) -> None:
        self._enter("done")
        await self._owner.end()
        await self._chronicle.close()
