"""Rounds of an instance's disks: every volume is held by a snapshot, and what differs from the one before is carried.

The newest snapshot that a disk has at the other end is the base of its next round, through any number of failed
cut-overs: a disk is carried whole once, and again only when what is there is not what it should be (SourceChanged).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from temporalio import workflow
from temporalio.exceptions import ActivityError
from temporalio.workflow import ActivityConfig

from models import failures
from models.cloud_bring import TARGETS
from models.cloud_move import MOST_ROUNDS, DiskSent, RoundReport
from models.clouds import Snapshot
from workflows import errors
from workflows.calls import arrivals, cloud
from workflows.calls.arrivals import SourceCloud
from workflows.cloud.rounds import Round

with workflow.unsafe.imports_passed_through():
    from clouds.tokens import token

REPEATS = 3
"""Times a round is begun anew because what is there was not what it should be, before the move fails."""


class HeldRounds:
    """Base of what carries them: `_carry`."""

    def __init__(self, source: SourceCloud, volumes: Sequence[str], move: str, *, deltas: bool = True) -> None:
        """`deltas`: only what changed can be carried; otherwise each round carries all."""
        self._source = source
        self._volumes = dict(zip(TARGETS, volumes, strict=False))
        """By what the disks are called."""
        self._deltas = deltas
        self.move = move
        self.got: dict[str, DiskSent] = {}
        """By target: what the other end has."""
        self.snapshots: list[str] = []
        """All that may be there still."""
        self.rounds: list[Round] = []
        self.reports: list[RoundReport] = []
        self.holding = 0.0
        """Seconds that the newest round's snapshots took."""
        self._number = 0
        self._shown = 0.0

    @property
    def disks(self) -> tuple[DiskSent, ...]:
        """What the other end has, in the VM's order."""
        return tuple(self.got[target] for target in self._volumes if target in self.got)

    @property
    def held(self) -> int:
        """Bytes that the last step has to read to compare: no more than what came."""
        return self.rounds[0].bytes if self.rounds else 0

    @property
    def saved_bytes(self) -> int:
        """Disks of instances start from no base that is kept."""
        return 0

    @property
    def sent_bytes(self) -> int:
        return sum(each.bytes for each in self.rounds)

    def decided(self, reason: str) -> None:
        """Why, after the newest round."""
        if self.reports:
            self.reports[-1] = self.reports[-1].model_copy(update={"reason": reason})

    async def round(self, obey: Callable[[], None]) -> None:
        """One round of the running instance: everything at first, then what changed. Raises ActivityError."""
        for left in reversed(range(REPEATS)):
            try:
                await self._round(obey, arrivals.SNAPSHOT, cloud.COPY, prove=False)
                return
            except ActivityError as error:
                if not _lost(error) or not left:
                    raise

    async def last(self, obey: Callable[[], None], downtime: float) -> None:
        """The instance is stopped: what its disks hold that the other end has not, and the proof. Raises
        ActivityError."""
        deadline = cloud.last_copy(downtime) if len(self.disks) == len(self._volumes) else cloud.cold_copy()
        try:
            await self._round(obey, deadline, deadline, prove=True)
        except ActivityError as error:
            if not _lost(error):
                raise
            await self._round(obey, cloud.cold_copy(), cloud.cold_copy(), prove=True)

    def token(self, step: str) -> str:
        return token(f"{workflow.info().workflow_id}/{self.move}", step)

    async def _carry(
        self, target: str, snapshot: Snapshot, before: DiskSent | None, deadline: ActivityConfig, *, prove: bool
    ) -> DiskSent:
        """Bring it; `before`: what the other end has, unless all of it is to be carried."""
        raise NotImplementedError

    async def _round(
        self, obey: Callable[[], None], hold: ActivityConfig, copy: ActivityConfig, *, prove: bool
    ) -> None:
        began, self._number = workflow.time(), self._number + 1
        shown = []
        for target, volume in self._volumes.items():
            obey()
            shown.append((target, await self._hold(target, volume, hold)))
        copying = workflow.time()
        came = 0
        for target, snapshot in shown:
            obey()
            came += await self._bring(target, snapshot, copy, prove=prove)
        self.holding = copying - began
        self._note(came, began, copying, "the instance was stopped" if prove else "")

    async def _hold(self, target: str, volume: str, deadline: ActivityConfig) -> Snapshot:
        step = self.token(f"snapshot/{target}/{self._number}")
        made = await self._source.snapshot(volume, step, deadline)
        self.snapshots.append(made.id)
        return made

    async def _bring(self, target: str, snapshot: Snapshot, deadline: ActivityConfig, *, prove: bool) -> int:
        """Bytes that came."""
        before = self.got.get(target) if self._deltas else None
        try:
            done = await self._carry(target, snapshot, before, deadline, prove=prove)
        except ActivityError as error:
            if _lost(error):
                self.got.pop(target, None)
            raise
        self.got[target] = done
        return done.bytes

    def _note(self, came: int, began: float, copying: float, reason: str) -> None:
        now = workflow.time()
        since = began - self._shown if self.rounds else 0.0
        self._shown = began
        self.rounds.append(Round(bytes=came, seconds=now - copying, since=since))
        self.reports.append(RoundReport(number=self._number, bytes=came, seconds=now - began, reason=reason))
        del self.reports[:-MOST_ROUNDS]


def _lost(error: ActivityError) -> bool:
    return errors.explain(error)[0] == failures.SOURCE_CHANGED
