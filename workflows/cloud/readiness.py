"""Until a move may cut over: rounds that make the last one short, and the wait for the moment that was asked for with
a copy that is kept fresh."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Protocol

from temporalio import workflow

from models import failures
from workflows import errors
from workflows.calls.site import Control
from workflows.cloud import rounds
from workflows.cloud.steered import Steered


class Remover(Protocol):
    """A cloud, as far as it removes what is of no more use."""

    async def remove(self, image: str, disks: Sequence[str]) -> Any: ...


class Readiness(Steered):
    """Base of all moves to, from and between clouds, which set these."""

    _site: str
    _cloud: Remover

    def _beside(self) -> bool:
        """People want something else while the move waits."""
        return False

    async def _do_beside(self) -> None:
        """Do that."""

    def _fixed(self) -> float:
        """Seconds of downtime that have nothing to do with how much is copied."""
        return rounds.START_SECONDS

    async def _converge(self) -> None:
        """Rounds, until one more would not help."""
        copy = self._copied()
        assert copy is not None
        while not self._cut_now:
            wanted = self._wanted
            step = rounds.decide(copy.rounds, wanted.downtime, wanted.rounds, copy.held, self._fixed())
            copy.decided(step.reason)
            self._chronicle.remark(step.reason)
            if step.action == "cut over":
                if not step.within:
                    self._chronicle.note(step.reason)
                return
            await self._round()

    async def _round(self) -> None:
        copy = self._copied()
        assert copy is not None
        self._obey()
        before = list(copy.made)
        await copy.round(self._obey)
        now = {disk.disk for disk in copy.disks}
        if old := [disk for disk in before if disk not in now]:
            await self._try("older snapshots are left", self._cloud.remove, "", old)
            copy.made[:] = [disk for disk in copy.made if disk not in old]

    async def _until_due(self, warm: bool) -> None:
        """Returns when to cut over. Meanwhile the copy is kept fresh, and tested when people want that."""
        wanted = self._wanted
        if wanted.cut_over == "now" and not self._why:
            return
        due, ends = await self._due(), workflow.time() + wanted.wait_within
        self._enter("waiting", self._why or "waiting for the cut-over; the VM runs at its source")
        while not self._cut_now and workflow.time() < due:
            self._obey()  # a cancel that came while a cut-over was undone
            if workflow.time() >= ends:
                raise errors.final(
                    failures.CANCELLED,
                    f"{wanted.vm}: nobody cut over within wait_within = {wanted.wait_within:g} s. {self._why}".strip(),
                )
            wait = min(wanted.refresh_every, due - workflow.time(), ends - workflow.time())
            with contextlib.suppress(TimeoutError):
                await workflow.wait_condition(
                    lambda: self._cut_now or self._beside(),
                    timeout=timedelta(seconds=wait),
                    timeout_summary="before the next round",
                )
            self._obey()
            if self._beside():
                await self._do_beside()
            elif warm and not self._cut_now:
                await self._round()
        self._cut_now = False
        if warm:
            self._enter("copying", "one more round before the cut-over")
            await self._round()

    async def _due(self) -> float:
        """Unix time of the cut-over; far away when people start it."""
        wanted, never = self._wanted, workflow.time() + 10**9
        if self._why or wanted.cut_over == "manual":
            return never
        if wanted.cut_over == "at" and wanted.cut_over_at is not None:
            return wanted.cut_over_at.timestamp()
        return (await Control(self._site).opening(wanted.windows, workflow.now())).timestamp()
