"""Until a move may cut over: rounds that make the last one short, the wait for the moment that was asked for with a
copy that is kept fresh, and tests with isolated copies meanwhile."""

from __future__ import annotations

import contextlib
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

from models import failures
from workflows import errors
from workflows.calls.cloud import CloudSite, SourceHost
from workflows.calls.site import Control
from workflows.cloud import rounds
from workflows.cloud.crossing import Crossing
from workflows.cloud.steered import Steered
from workflows.lasting import to_the_end


class Readiness(Steered):
    """Base of MoveToCloud, which sets these."""

    _site: str
    _host: SourceHost
    _cloud: CloudSite

    def __init__(self) -> None:
        super().__init__()
        self._tests = 0

    async def _converge(self) -> None:
        """Rounds, until one more would not help."""
        assert self._copy is not None
        while not self._cut_now:
            held = self._copy.held
            step = rounds.decide(self._copy.rounds, self._wanted.downtime, self._wanted.rounds, held)
            self._copy.decided(step.reason)
            self._chronicle.remark(step.reason)
            if step.action == "cut over":
                if not step.within:
                    self._chronicle.note(step.reason)
                return
            await self._round()

    async def _round(self) -> None:
        assert self._copy is not None
        self._obey()
        before = list(self._copy.made)
        await self._copy.round(self._obey)
        now = {disk.disk for disk in self._copy.disks}
        if old := [disk for disk in before if disk not in now]:
            await self._try("older snapshots are left", self._cloud.remove, "", old)
            self._copy.made = [disk for disk in self._copy.made if disk not in old]

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
                    lambda: self._cut_now or self._test is not None,
                    timeout=timedelta(seconds=wait),
                    timeout_summary="before the next round",
                )
            self._obey()
            if self._test is not None:
                await self._run_test()
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

    async def _run_test(self) -> None:
        assert self._test is not None
        assert self._copy is not None
        wish, self._tests = self._test, self._tests + 1
        self._enter("testing", "booting an isolated copy; the VM runs on at its source")
        trial = Crossing(self._wanted, self._host, self._cloud, self._copy, f"test-{self._tests}")
        try:
            said = await trial.start(wish.network, wish.verify, f"{self._wanted.vm}-test", self._obey)
            told = f"the test went well: {said}"
        except ActivityError as error:
            told = f"the test failed: {errors.explain(error)[1]}"
        except ApplicationError as error:
            told = f"the test failed: {error.message}"
        finally:
            await to_the_end(trial.drop_test(), on_cancel=lambda: None)
        self._chronicle.note(told)
        self._test, self._tested, self._cut_now = None, told, self._cut_now
        self._enter("waiting", told)
