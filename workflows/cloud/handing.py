"""After the point of no return of a move between clouds: the record names the new cloud, what the move needed goes at
both ends, and the old instance is kept stopped, to be rolled back to. It is terminated only if the request says so, and
the new one is seen to run."""

from __future__ import annotations

from temporalio.exceptions import ActivityError

from models.cloud_move import owner_of
from models.cloud_transfer import CloudTransferRequest
from models.clouds import Architecture
from workflows import errors
from workflows.calls.arrivals import SourceCloud
from workflows.cloud.launching import Launching
from workflows.cloud.passage import Passage
from workflows.cloud.relaying import Relaying
from workflows.cloud.rounds import PASS_SECONDS
from workflows.cloud.trials import Trials


class Handing(Trials):
    """Base of MoveBetweenClouds, which sets these."""

    _wanted: CloudTransferRequest
    _from: SourceCloud
    _instance: str
    """The old one."""
    _architecture: Architecture
    _ran: bool
    _moved = "the VM runs in the new cloud already: roll_back takes it back"

    def __init__(self) -> None:
        super().__init__()
        self._copy: Relaying | None = None

    def _copied(self) -> Relaying | None:
        return self._copy

    def _fixed(self) -> float:
        """A snapshot takes what it takes, however little changed."""
        return PASS_SECONDS + (self._copy.holding if self._copy else 0.0)

    def _trial(self, name: str) -> Passage:
        assert self._copy is not None
        return Passage(
            self._wanted, self._from, self._cloud, self._copy, name, self._instance, self._architecture, self._ran
        )

    async def _round(self) -> None:
        await super()._round()
        assert self._copy is not None
        if old := self._copy.outdated():
            await self._try("older snapshots are left", self._from.remove, "", old)

    async def _keep(self) -> None:
        """The VM runs in the new cloud: the record says so, what the move needed goes, the old instance is kept."""
        assert self._copy is not None
        assert self._crossing is not None
        wanted, copy = self._wanted, self._copy
        await self._owner.end(runs_on=owner_of(wanted.to))
        await self._try("image and disks are left", self._crossing.clean)
        await self._try("snapshots are left", self._from.remove, "", copy.snapshots)
        await self._try("ledgers are left", copy.forget)
        await self._while_kept(
            f"runs in {wanted.to} as {self._crossing.instance}; instance {self._instance} is kept, stopped"
        )
        self._rolled_back = self._give_back is not None and await self._back(self._crossing)
        left = f"instance {self._instance} was not terminated"
        if not self._rolled_back and wanted.then == "remove" and await self._still_runs(left):
            self._removed = await self._try(left, self._from.terminate, self._instance, copy.token("terminate"))
        await self._over()

    async def _back(self, crossing: Launching) -> bool:
        """Stop the new instance, and be sure of it; then the old one runs again, and the record says so."""
        assert self._copy is not None
        wanted, copy = self._wanted, self._copy
        try:
            copy.ref = await self._owner.retake(self._site, copy.ref, copy.ref.token, owner=owner_of(wanted.to))
            await crossing.stop_instance()
            await self._from.start(self._instance)
        except ActivityError as error:
            self._chronicle.note(
                f"not rolled back: {errors.explain(error)[1]}. See whether instance {crossing.instance} is stopped "
                f"before you start instance {self._instance} by hand"
            )
            return False
        self._runs_on = wanted.source
        self._chronicle.note(f"rolled back; instance {crossing.instance} is stopped and kept with its disks")
        await self._owner.end(runs_on=owner_of(wanted.source))
        return True

    async def _clear(self) -> None:
        if self._copy is not None and self._copy.ref.token:
            await self._try("disks are left", self._cloud.remove, "", self._copy.made)
            await self._try("snapshots are left", self._from.remove, "", self._copy.snapshots)
            await self._try("ledgers are left", self._copy.forget)
