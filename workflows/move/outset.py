"""From the request to the moment a move may start: checked, its policy settled, and one of its windows open.

A move outside its windows waits for the next one, for days if need be, and holds the VM's lock meanwhile. Then all is
checked anew: the VM may have gone, or the destination filled up.
"""

from __future__ import annotations

from datetime import datetime

from temporalio import workflow

from models.migration import MigrateRequest
from workflows.move.chronicle import Chronicle
from workflows.plan import preflight
from workflows.sharing.joining import Sharing


class Outset:
    def __init__(self, chronicle: Chronicle) -> None:
        self._chronicle = chronicle
        self.sharing: Sharing | None = None
        """The move's part in sharing the site's bandwidth, once it may start."""
        self._now = False
        """Somebody said not to wait for a window."""

    async def ready(self, site: str, wanted: MigrateRequest) -> preflight.Survey:
        """Returns when the move may start. Raises Refused and others, at once or when a window opens."""
        named = [wanted.source, wanted.to] if wanted.source else [wanted.to]
        self._chronicle.begin(f"{wanted.vm} → {wanted.to}", wanted.vm, site, named)
        while True:
            found = await preflight.survey(site, wanted, self._now)
            preflight.refuse(found, wanted)
            if found.opens is None:
                break
            await self._wait(found.opens)
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
