"""The disks on their way: what the cloud has of each, the rounds so far, and all that will have to be removed again.

What a disk's last round made is the base of its next one, through any number of failed cut-overs: a disk is sent whole
once, and again only when what is known of it was lost on its host (SourceChanged).
"""

from __future__ import annotations

from collections.abc import Callable

from temporalio import workflow
from temporalio.exceptions import ActivityError
from temporalio.workflow import ActivityConfig

from models import failures
from models.cloud_move import MOST_ROUNDS, DiskSent, RoundOrder, RoundReport, SendDisk, SourceFacts
from models.clouds import CloudId
from models.migration import VmRef
from workflows import errors
from workflows.calls import cloud as calls
from workflows.calls.cloud import SourceHost
from workflows.cloud import figures
from workflows.cloud.rounds import Round

with workflow.unsafe.imports_passed_through():
    from clouds.tokens import token

REPEATS = 3
"""Times a round is begun anew because its moment was lost, before the move fails."""


class Copying:
    def __init__(self, host: SourceHost, facts: SourceFacts, place: str, move: str, *, cached: bool = False) -> None:
        """`cached`: disks may start from bases that the place keeps."""
        self._host = host
        self.facts = facts
        self._place = place
        self._cached = cached
        self.move = move
        self.ref: VmRef = facts.vm
        self.sent: dict[str, DiskSent] = {}
        """By target: what the cloud has."""
        self.made: list[CloudId] = []
        """Every disk that was ever finished in the cloud."""
        self.rounds: list[Round] = []
        self.reports: list[RoundReport] = []
        self._number = 0
        self._base: int | None = None
        """Number of the newest round that all disks have."""
        self._shown = 0.0

    @property
    def disks(self) -> tuple[DiskSent, ...]:
        """What the cloud has, in the VM's order."""
        return tuple(self.sent[disk.target] for disk in self.facts.disks if disk.target in self.sent)

    @property
    def held(self) -> int:
        return sum(min(disk.allocated, disk.capacity) for disk in self.facts.disks)

    @property
    def sent_bytes(self) -> int:
        return sum(each.bytes for each in self.rounds)

    @property
    def saved_bytes(self) -> int:
        return sum(disk.saved for disk in self.sent.values())

    async def round(self, obey: Callable[[], None]) -> None:
        """One round of the running VM: everything at first, then what changed. Raises ActivityError."""
        for left in reversed(range(REPEATS)):
            try:
                await self._round(obey)
                return
            except ActivityError as error:
                if errors.explain(error)[0] != failures.SOURCE_CHANGED or not left:
                    raise
                self._forget_what_was_lost()

    async def last(self, deadline: ActivityConfig | None = None) -> None:
        """The VM is off: what its images hold that the cloud has not. Raises ActivityError."""
        began, self._number = workflow.time(), self._number + 1
        sent = 0
        for disk in self.facts.disks:
            try:
                sent += await self._send(disk.target, None, False, deadline or calls.cold_copy())
            except ActivityError as error:
                if errors.explain(error)[0] != failures.SOURCE_CHANGED:
                    raise
                self.sent.pop(disk.target, None)
                sent += await self._send(disk.target, None, False, calls.cold_copy(), anew=True)
        self._note(sent, began, "the VM was off")

    async def settle(self, *, remove: bool = False) -> None:
        await self._host.settle(self.move, self.ref, self.facts.disks, self._place, remove=remove)

    def decided(self, reason: str) -> None:
        """Why, after the newest round."""
        if self.reports:
            self.reports[-1] = self.reports[-1].model_copy(update={"reason": reason})

    async def _round(self, obey: Callable[[], None]) -> None:
        began, self._number = workflow.time(), self._number + 1
        order = RoundOrder(move=self.move, vm=self.ref, number=self._number, base=self._base, disks=self.facts.disks)
        begun = await self._host.begin_round(order)
        sent = 0
        try:
            for disk in self.facts.disks:
                obey()
                sent += await self._send(disk.target, order, disk.target in begun.telling, calls.COPY)
        finally:
            await self._host.end_round(order)
        self._base = self._number
        self._note(sent, began, "")

    async def _send(
        self, target: str, round: RoundOrder | None, telling: bool, deadline: ActivityConfig, *, anew: bool = False
    ) -> int:
        """Bytes that were sent."""
        disk = next(each for each in self.facts.disks if each.target == target)
        before = self.sent.get(target)
        step = f"disk/{target}/{self._number}{'/anew' if anew else ''}"
        order = SendDisk(
            move=self.move,
            place=self._place,
            vm=self.ref,
            disk=disk,
            name=f"{self.ref.vm}-{target}"[:63],
            token=token(f"{workflow.info().workflow_id}/{self.move}", step),
            base=before.disk if before else "",
            round=round,
            telling=telling and before is not None,
            cached=self._cached and before is None,
        )
        done = await self._host.send(order, deadline)
        if order.cached:
            figures.cache_look(self._place, done)
        elif before is not None:
            done = done.model_copy(update={"cache": before.cache})
        self.sent[target] = done
        if done.disk not in self.made:
            self.made.append(done.disk)
        return done.bytes

    def _note(self, sent: int, began: float, reason: str) -> None:
        now = workflow.time()
        since = began - self._shown if self.rounds else 0.0
        self._shown = began
        self.rounds.append(Round(bytes=sent, seconds=now - began, since=since))
        self.reports.append(RoundReport(number=self._number, bytes=sent, seconds=now - began, reason=reason))
        del self.reports[:-MOST_ROUNDS]

    def _forget_what_was_lost(self) -> None:
        """The moment is gone, or the ledger: which of them, the next round finds out. Bitmaps are no base any more; the
        ledgers are, unless this happens twice."""
        if self._base is None:
            self.sent.clear()
        self._base = None
