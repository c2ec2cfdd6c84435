"""The disks on their way home: what the host has of each, the rounds so far, and the snapshots that will have to be
removed again.

A round holds every volume by a snapshot, and brings what differs from the one before. The newest snapshot that a disk
has is the base of its next round, through any number of failed cut-overs: a disk is brought whole once, and again only
when its image is not what its ledger says (SourceChanged).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from temporalio import workflow
from temporalio.exceptions import ActivityError
from temporalio.workflow import ActivityConfig

from models import failures
from models.cloud_bring import TARGETS, ReceiveDisk
from models.cloud_move import MOST_ROUNDS, DiskSent, RoundReport
from models.clouds import Snapshot
from models.disks import DiskImage
from models.migration import VmRef
from workflows import errors
from workflows.calls import arrivals, cloud
from workflows.calls.arrivals import ArrivalHost, SourceCloud
from workflows.cloud.rounds import Round

with workflow.unsafe.imports_passed_through():
    from clouds.tokens import token

REPEATS = 3
"""Times a round is begun anew because an image was not what it should be, before the move fails."""
FORMAT = "qcow2"


class Fetching:
    def __init__(
        self,
        host: ArrivalHost,
        source: SourceCloud,
        vm: VmRef,
        volumes: Sequence[str],
        folder: str,
        move: str,
        *,
        deltas: bool = True,
    ) -> None:
        """`deltas`: the cloud tells what changed; otherwise each round brings all."""
        self._host = host
        self._source = source
        self._volumes = tuple(volumes)
        self._deltas = deltas
        self.move = move
        self.ref = vm
        self.images = tuple(
            DiskImage(target=target, path=f"{folder}/{vm.vm}-{target}-{move}.{FORMAT}", format=FORMAT)
            for target, _ in zip(TARGETS, volumes, strict=False)
        )
        """Under names that no other move has: nothing that is there is ever written to."""
        self.got: dict[str, DiskSent] = {}
        """By target: what the host has."""
        self.made: list[str] = []
        """Every snapshot that may be there still."""
        self.rounds: list[Round] = []
        self.reports: list[RoundReport] = []
        self.holding = 0.0
        """Seconds that the newest round's snapshots took."""
        self._number = 0
        self._shown = 0.0

    @property
    def disks(self) -> tuple[DiskSent, ...]:
        """What the host has, in the VM's order."""
        return tuple(self.got[image.target] for image in self.images if image.target in self.got)

    @property
    def saved_bytes(self) -> int:
        """Nothing is kept of what comes home."""
        return 0

    @property
    def held(self) -> int:
        """Bytes that the last step has to read to compare: no more than what came."""
        return self.rounds[0].bytes if self.rounds else 0

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
        """The instance is stopped: what its disks hold that the host has not, and the proof. Raises ActivityError."""
        deadline = cloud.last_copy(downtime) if len(self.disks) == len(self.images) else cloud.cold_copy()
        try:
            await self._round(obey, deadline, deadline, prove=True)
        except ActivityError as error:
            if not _lost(error):
                raise
            await self._round(obey, cloud.cold_copy(), cloud.cold_copy(), prove=True)

    async def settle(self, *, keep: bool, autostart: bool = False) -> None:
        await self._host.settle(self.move, self.ref, self.images, keep=keep, autostart=autostart)

    def token(self, step: str) -> str:
        return token(f"{workflow.info().workflow_id}/{self.move}", step)

    async def _round(
        self, obey: Callable[[], None], hold: ActivityConfig, copy: ActivityConfig, *, prove: bool
    ) -> None:
        began, self._number = workflow.time(), self._number + 1
        shown = []
        for image, volume in zip(self.images, self._volumes, strict=True):
            obey()
            shown.append(await self._hold(image, volume, hold))
        copying = workflow.time()
        came = 0
        for image, snapshot in zip(self.images, shown, strict=True):
            obey()
            came += await self._receive(image, snapshot, copy, prove=prove)
        self.holding = copying - began
        self._note(came, began, copying, "the instance was stopped" if prove else "")

    async def _hold(self, image: DiskImage, volume: str, deadline: ActivityConfig) -> Snapshot:
        step = self.token(f"snapshot/{image.target}/{self._number}")
        made = await self._source.snapshot(volume, step, deadline)
        self.made.append(made.id)
        return made

    async def _receive(self, image: DiskImage, snapshot: Snapshot, deadline: ActivityConfig, *, prove: bool) -> int:
        """Bytes that came."""
        before = self.got.get(image.target)
        order = ReceiveDisk(
            move=self.move,
            place=self._source.place,
            vm=self.ref,
            target=image.target,
            path=image.path,
            disk=snapshot.id,
            base=before.disk if before and self._deltas else "",
            token=self.token(f"disk/{image.target}/{self._number}"),
            prove=prove,
        )
        try:
            done = await self._host.receive(order, deadline)
        except ActivityError as error:
            if _lost(error):
                self.got.pop(image.target, None)
            raise
        self.got[image.target] = done
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
