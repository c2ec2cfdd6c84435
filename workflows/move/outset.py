"""From the request to the moment a move may start: checked, its policy settled, a window open, and a slot free.

A move outside its windows waits for the next one, for days if need be, and holds the VM's lock meanwhile. Where the
site bounds how many moves run at once it then waits for its slot, as long as its policy gives it for the move itself.
After each wait all is checked anew: the VM may have gone, or the destination filled up.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from temporalio import workflow

from models import failures, goals
from models.migration import MigrateRequest
from models.slots import SlotWish
from workflows import details, errors
from workflows.move import figures
from workflows.move.chronicle import Chronicle
from workflows.plan import preflight
from workflows.sharing.joining import Sharing
from workflows.sharing.queueing import Slot, TooLate


class Outset:
    def __init__(self, chronicle: Chronicle, changes: Mapping[str, Any]) -> None:
        self._chronicle = chronicle
        self._changes = changes
        """Fields of the policy that people have changed since the start."""
        self.sharing: Sharing | None = None
        """The move's part in sharing the site's bandwidth, once it may start."""
        self.slot = Slot()
        self._now = False
        """Somebody said not to wait for a window."""

    async def ready(self, site: str, wanted: MigrateRequest) -> preflight.Survey:
        """Returns when the move may start. Raises Refused and others, at once or when a window opens."""
        named = [wanted.source, wanted.to] if wanted.source else [wanted.to]
        self._chronicle.begin(f"{wanted.vm} → {wanted.to}", wanted.vm, site, named)
        while True:
            found = await preflight.survey(site, wanted, self._now)
            preflight.refuse(found, wanted)
            if found.opens is not None:
                await self.slot.give_back()
                await self._wait(found.opens)
            elif not await self._queue(site, wanted, found):
                break
            self._chronicle.remark("")
            self._chronicle.enter("checking")
        if found.shares and found.sheet is not None:
            self.sharing = Sharing(site, found.source, wanted.to, found.sheet.policy.priority)
        self._chronicle.between(f"{wanted.vm}: {found.source} → {wanted.to}", [found.source, wanted.to])
        for warning in found.warnings:
            self._chronicle.note(f"{warning.what}. {warning.remedy}")
        return found

    def start_now(self) -> None:
        self._now = True

    async def _queue(self, site: str, wanted: MigrateRequest, found: preflight.Survey) -> bool:
        """Take a slot of everything on the way. True: it was waited for, so what was found may be out of date."""
        assert found.sheet is not None
        assert found.chosen is not None
        info, policy, asked = workflow.info(), found.chosen.policy, workflow.now()
        wish = SlotWish(
            workflow_id=info.workflow_id,
            run_id=info.run_id,
            source=found.source,
            to=wanted.to,
            tenant=found.sheet.vm.labels.get("tenant", ""),
            priority=policy.priority,
            since=self.slot.since or asked,
        )
        if found.half or not found.slots:  # a VM in two halves waits for nobody
            self.slot.moves_anyway(wish)
            return False

        def until() -> datetime:
            changed = policy.model_copy(update=dict(self._changes))
            return asked + timedelta(seconds=goals.seconds_left(changed, asked))

        if self.slot.has(wish):
            return False
        try:
            waited = await self.slot.take(site, wish, until, self._tell)
        except TooLate as error:
            raise errors.final(
                failures.REFUSED,
                f"{wanted.vm} waited {details.duration((workflow.now() - asked).total_seconds())} for a slot, all the "
                f"time that its policy gives it (finish_within, finish_by): {error}. Nothing was started. Give it more "
                f"time, start it later, or raise that limit in the site's settings (slots)",
            ) from None
        figures.had_its_slot((workflow.now() - asked).total_seconds() if waited else 0.0)
        return waited

    def _tell(self, why: str) -> None:
        if self._chronicle.progress.phase != "waiting":
            self._chronicle.enter("waiting")
        self._chronicle.remark(f"waits for a slot: {why}")

    async def _wait(self, opens: datetime) -> None:
        self._chronicle.enter("waiting")
        when = opens.isoformat(timespec="minutes")
        self._chronicle.remark(f"checked; its next window opens at {when}. The update start_now does not wait for it")
        try:
            await workflow.wait_condition(
                lambda: self._now, timeout=opens - workflow.now(), timeout_summary=f"until {when}: a window opens"
            )
        except TimeoutError:
            return
